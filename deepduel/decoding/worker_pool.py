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
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import numpy as np

from deepduel.decoding.buffers import Buffer
from deepduel.decoding.image import FITS, DecodeOptions
from deepduel.decoding.worker import DIED, DONE, HEADER, READY, ROWS
from tfrecords_tools import worker_process
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
            self._crew = _Crew(processes, taking.fileno(), [answering for _, answering in self._answers])
        self.workers, self.ready = self._crew.workers, self._crew.ready
        sockets = [self._tasks, *itertools.chain(*self._answers)]
        weakref.finalize(self, _dismiss, self._crew, sockets, os.getpid()).atexit = False

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
        self._crew.over.wait()
        return DataError(
            f"a decoding process ended {self._crew.how}; if memory ran out, start again with a smaller "
            "`threads`"
        )

    def uses(self, crew: "_Crew") -> bool:
        return self._crew is crew

    def leave(self) -> None:
        """In a fork of the process: closes the sockets, which belong to the parent."""
        self._tasks.close()
        for pair in self._answers:
            for end in pair:
                end.close()


class _Crew:
    """The processes of a pool, and the thread that waits for their end. It doesn't keep the pool alive.

    Attributes:
      workers: the processes.
      ready: set once all of them can work.
      over: set once they have ended; `how` then says how the first one did.
      dismissed: whether they are meant to end.
    """

    def __init__(self, processes: int, tasks: int, answering: list[socket.socket]) -> None:
        """Starts the processes. Raises OSError when the system cannot start one."""
        self.workers: list[subprocess.Popen] = []
        self.ready, self.over = threading.Event(), threading.Event()
        self.how = ""
        self.dismissed = False
        self._alive: list[int] = []
        self._answering = answering
        try:
            for _ in range(processes):
                worker, alive = _start(tasks, [end.fileno() for end in answering])
                self.workers.append(worker)
                self._alive.append(alive)
        except OSError:
            self._stop()
            raise
        threading.Thread(target=self._watch, name="decode-pool", daemon=True).start()

    def kill(self) -> None:
        """Ends the processes without waiting for them; the watching thread does that."""
        for worker in self.workers:
            worker.kill()

    def _watch(self) -> None:
        """Sets `ready`, and waits until a worker ends."""
        poll, starting = select.poll(), set(self._alive)
        for alive in self._alive:
            poll.register(alive, select.POLLIN)
        while True:
            for alive, _ in poll.poll():
                if os.read(alive, 1) != READY:
                    self._end(self._alive.index(alive))
                    return
                starting.discard(alive)
                if not starting:
                    self.ready.set()

    def _end(self, first: int) -> None:
        """Worker number `first` has ended: ends the others too, before the running calls fail."""
        self.workers[first].wait()
        self._stop()
        self.how = _how(self.workers[first].returncode)
        if not self.dismissed:
            _forget(self)
            if not self.ready.is_set():
                _unavailable.add(len(self.workers))
                _warn(f"the worker processes did not start: the first ended {self.how}")
        self.over.set()
        for end in self._answering:
            with contextlib.suppress(OSError):  # closed: nobody waits any more
                end.send(DIED)

    def _stop(self) -> None:
        self.kill()
        for worker, alive in zip(self.workers, self._alive, strict=True):
            worker.wait()
            os.close(alive)


def _dismiss(crew: _Crew, sockets: list[socket.socket], process: int) -> None:
    """Ends the workers of a pool to which nothing refers any more; may be called in any thread."""
    if process == os.getpid():  # in a fork, the parent still uses them
        crew.dismissed = True
        crew.kill()
    for end in sockets:
        end.close()


def _forget(crew: _Crew) -> None:
    with _lock:
        pool = _pools.get(len(crew.workers))
        if pool is not None and pool.uses(crew):
            del _pools[len(crew.workers)]


def _start(tasks: int, answers: list[int]) -> tuple[subprocess.Popen, int]:
    """Starts a worker.

    Returns:
      The process, and a descriptor from which READY is read once it can work, and b"" once it has ended.
    """
    alive, alive_writer = os.pipe()
    files = [tasks, alive_writer, *answers]
    try:
        worker = worker_process.start(
            "deepduel.decoding.worker", "main", [tasks, alive_writer, answers], files
        )
    except OSError:
        os.close(alive)
        raise
    finally:
        os.close(alive_writer)
    return worker, alive


def _how(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    killed = "; the system does that when memory runs out" if code == -signal.SIGKILL else ""
    return f"by {signal.Signals(-code).name}{killed}"


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
