"""Processes that decode rows of batches, shared by all data sets of this process.

Threads would wait for one another at the interpreter's lock, and for tf.data's own calls; processes do
not. Batches lie in memory that all of them share (`buffers`), so nothing is copied.

    parent  --- tasks: one socket, from which each idle worker takes the next --->  workers
    call    <-- answers: one socket for each running call -----------------------  workers

Starting a pool pays only where there is much to decode: there is none until the parent has decoded for
STARTS_AFTER seconds itself. Workers end when nothing refers to their pool any more, and when the parent does,
however it ends. When one of them ends before, the running calls raise DataError, and the next call starts a
new pool.
"""

import contextlib
import itertools
import os
import queue
import socket
import sys
import threading
import weakref
from collections.abc import Callable

import numpy as np

from deepduel.decoding.buffers import Buffer
from deepduel.decoding.image import FITS, DecodeOptions
from deepduel.decoding.worker import DONE, HEADER, ROWS
from deepduel.decoding.worker_group import WorkerGroup
from tfrecords_tools.errors import DataError

STARTS_AFTER = 0.25  # seconds of processor time that this process decodes; a worker's start costs as much
_CALLS = 16  # at the same time; further ones wait
_AHEAD = 32  # unanswered tasks of one call
_ANSWER_BYTES = len(DONE) + 4 * ROWS
_FEWEST = 8  # rows of a task: sending fewer costs more than the better balance saves

_lock = threading.Lock()
_pools: weakref.WeakValueDictionary[int, "WorkerPool"] = weakref.WeakValueDictionary()
_unavailable: set[int] = set()  # numbers of processes that cannot be started
_spent: dict[int, float] = {}


def shared(processes: int) -> "WorkerPool | None":
    """The pool of this many processes, if it has been started."""
    return _pools.get(processes)


def spent(processes: int, seconds: float) -> "WorkerPool | None":
    """Adds processor time that this process spent on decoding; starts the pool once it is worth it.

    Returns:
      The pool, if it has been started. It ends when nobody keeps a reference to it any more.
    """
    with _lock:
        pool = _pools.get(processes)
        if pool is not None or processes in _unavailable:
            return pool
        _spent[processes] = _spent.get(processes, 0.0) + seconds
        if _spent[processes] < STARTS_AFTER:
            return None
        _spent[processes] = 0.0
        try:
            pool = _pools[processes] = WorkerPool(processes)
        except OSError as error:
            _unavailable.add(processes)
            _warn(f"no worker process can be started ({error.strerror})")
        return pool


class WorkerPool:
    """Worker processes and the sockets to them. Several threads may call `decode` at once.

    The processes end when nothing refers to the pool any more.

    Attributes:
      processes: their number.
      ready: set once all of them can work.
      workers: the processes.
    """

    def __init__(self, processes: int) -> None:
        """Starts the processes and returns at once.

        Raises:
          OSError: the system cannot start a process.
        """
        self.processes = processes
        self._tasks, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._answers = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(_CALLS)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for call in range(_CALLS):
            self._free.put(call)
        with taking:
            answering = [pair[1] for pair in self._answers]
            self._group = WorkerGroup(processes, taking.fileno(), answering, _forget)
        self.workers, self.ready = self._group.workers, self._group.ready
        sockets = [self._tasks, *itertools.chain(*self._answers)]
        weakref.finalize(self, _dismiss, self._group, sockets, os.getpid()).atexit = False

    def decode(
        self,
        table: np.ndarray,
        opened: Callable[[list[int]], contextlib.AbstractContextManager[list[int]]],
        options: DecodeOptions,
        batch: Buffer,
        *,
        first: int,
        seeded: bool,
    ) -> list[int]:
        """Decodes the rows of `batch` from `first` on; returns the numbers of those that failed, in order.

        Args:
          table: int64 [rows, COLUMNS], with file numbers that `opened` understands.
          opened: opens files by their numbers, as a context manager of their descriptors.
          seeded: whether to use the table's seeds.

        Raises:
          DataError: a worker ended.
          OSError, DataError: those that `opened` raises.
        """
        call = self._free.get()
        try:
            return sorted(self._decode(call, table, opened, options, batch, first, seeded))
        finally:
            self._free.put(call)

    def _decode(
        self,
        call: int,
        table: np.ndarray,
        opened: Callable[[list[int]], contextlib.AbstractContextManager[list[int]]],
        options: DecodeOptions,
        batch: Buffer,
        first: int,
        seeded: bool,
    ) -> list[int]:
        size = min(max(-(-len(table) // self.processes), _FEWEST), ROWS)
        fit, fast = FITS.index(options.fit), options.fast
        failed: list[int] = []
        waiting = 0
        try:
            for start in range(0, len(table), size):
                if waiting == _AHEAD:  # both sides would wait if the sockets were full of tasks and answers
                    waiting -= 1
                    failed += self._answer(call)
                head = (call, batch.number, batch.size, first + start, *options.size, fit, fast, seeded)
                self._send(head, table[start : start + size].copy(), batch.file, opened)
                waiting += 1
        finally:
            for _ in range(waiting):  # never give away a buffer that is still written to
                failed += self._answer(call)
        return failed

    def _send(self, head: tuple, rows: np.ndarray, memory: int, opened: Callable) -> None:
        indices = {number: index for index, number in enumerate(dict.fromkeys(rows[:, 0].tolist()))}
        rows[:, 0] = [indices[number] for number in rows[:, 0].tolist()]
        with opened(list(indices)) as files:
            try:
                socket.send_fds(self._tasks, [HEADER.pack(*head), rows.data], [memory, *files])
            except (BrokenPipeError, ConnectionResetError):  # all workers have ended
                raise self._died() from None

    def _answer(self, call: int) -> list[int]:
        answer = self._answers[call][0].recv(_ANSWER_BYTES)
        if answer[:1] != DONE:
            raise self._died()
        return np.frombuffer(answer, np.int32, offset=1).tolist()

    def _died(self) -> DataError:
        self._group.over.wait()
        return DataError(
            f"a decoding process ended {self._group.how}; if memory ran out, start again with a smaller "
            "`threads`"
        )

    def uses(self, group: WorkerGroup) -> bool:
        return self._group is group

    def leave(self) -> None:
        """In a fork of the process: closes the sockets, which belong to the parent."""
        self._tasks.close()
        for pair in self._answers:
            for end in pair:
                end.close()


def _dismiss(group: WorkerGroup, sockets: list[socket.socket], process: int) -> None:
    """Ends the workers of a pool to which nothing refers any more; may be called in any thread."""
    if process == os.getpid():  # in a fork, the parent still uses them
        group.dismissed = True
        group.kill()
    for end in sockets:
        end.close()


def _forget(group: WorkerGroup) -> None:
    """Has the next call start a new pool, or none if the processes of this group never were ready."""
    processes = len(group.workers)
    with _lock:
        pool = _pools.get(processes)
        if pool is not None and pool.uses(group):
            del _pools[processes]
    if not group.ready.is_set():
        _unavailable.add(processes)
        _warn(f"the worker processes did not start: the first ended {group.how}")


def _warn(reason: str) -> None:
    sys.stderr.write(f"decoding in this process alone, which is slower: {reason}\n")
    sys.stderr.flush()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for pool in list(_pools.values()):
        pool.leave()
    _pools.clear()
    _unavailable.clear()
    _spent.clear()


os.register_at_fork(after_in_child=_after_fork)
