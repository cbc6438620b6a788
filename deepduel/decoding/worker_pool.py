"""Processes that decode rows of batches, shared by all data sets of this process.

Threads would wait for one another at the interpreter's lock, and for tf.data's own calls; processes do
not. Batches lie in memory that all of them share (`batch_buffers`), so nothing is copied.

    parent  --- tasks: one socket, from which whoever is free takes the next --->  workers
    call    <-- answers: one socket for each call that is under way -------------  workers

A pool is worth its start only where there is much to decode: until the parent has decoded for
STARTS_AFTER seconds itself, there is none. Workers end when the parent does, however it ends. When one
of them ends before, the calls under way raise DataError, and the next one begins a new pool.
"""

import contextlib
import json
import multiprocessing.spawn
import os
import pathlib
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np

from deepduel.decoding.buffers import Buffer
from deepduel.decoding.image import FITS, DecodeOptions
from deepduel.decoding.worker import DIED, DONE, HEADER, READY, ROWS
from tfrecords_tools.errors import DataError

STARTS_AFTER = 0.25  # seconds of processor time spent on decoding here; a worker costs as much
_CALLS = 16  # under way at once; further ones wait
_AHEAD = 32  # tasks of one call that are not answered yet
_ANSWER_BYTES = len(DONE) + 4 * ROWS
_PACKAGES = [str(pathlib.Path(__file__).parents[2])]
_FEWEST = 8  # rows of a task: fewer cost more to hand over than they even out

_lock = threading.Lock()
_pools: dict[int, "DecodePool | None"] = {}  # None: cannot be started
_spent: dict[int, float] = {}

_PROGRAM = """
import json, sys
path, descriptors = json.loads(sys.argv[1])
sys.path[:] = path
from deepduel.decoding import worker
worker.main(*descriptors)
"""


def ready(processes: int) -> "DecodePool | None":
    """The pool of so many processes, if it has been started and can work."""
    pool = _pools.get(processes)
    return pool if pool is not None and pool.ready.is_set() else None


def spent(processes: int, seconds: float) -> None:
    """This process has decoded for `seconds` more; starts the pool when that has become worth it."""
    with _lock:
        _spent[processes] = _spent.get(processes, 0.0) + seconds
        if processes in _pools or _spent[processes] < STARTS_AFTER:
            return
        try:
            _pools[processes] = DecodePool(processes)
        except OSError as error:
            _pools[processes] = None
            _tell(f"no process can be started for it ({error.strerror})")


def _forget(pool: "DecodePool") -> None:
    with _lock:
        if _pools.get(pool.processes) is pool:
            del _pools[pool.processes]
            _spent[pool.processes] = 0.0


class DecodePool:
    """Some worker processes and the sockets to them. Several threads may call `decode` at once.

    Attributes:
      processes: how many.
      ready: set once all of them can work.
      workers: the processes.
    """

    def __init__(self, processes: int):
        """Starts them and returns at once. Raises OSError where the system lets no process start."""
        self.processes = processes
        self.ready = threading.Event()
        self._tasks, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._answers = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(_CALLS)]
        self._free = queue.SimpleQueue()
        for call in range(_CALLS):
            self._free.put(call)
        answering = [answering.fileno() for _, answering in self._answers]
        self.workers, self._alive = [], []
        try:
            with taking:
                for _ in range(processes):
                    worker, alive = _start(taking.fileno(), answering)
                    self.workers.append(worker)
                    self._alive.append(alive)
        except OSError:
            self._stop()
            raise
        self._over = threading.Event()
        self._how = ""
        threading.Thread(target=self._watch, name="decode-pool", daemon=True).start()

    def decode(
        self,
        table: np.ndarray,
        opened: Callable[[list[int]], contextlib.AbstractContextManager[list[int]]],
        decoding: DecodeOptions,
        batch: Buffer,
        *,
        first: int,
        seeded: bool,
    ) -> list[int]:
        """Decodes the rows of `batch` from `first` on; gives the numbers of those that failed, in order.

        Args:
          table: int64 [rows, COLUMNS], the file by a number of the caller's own.
          opened: descriptors of files by these numbers.
          seeded: whether the table's seeds count.

        Raises:
          DataError: a worker ended. OSError, DataError: what `opened` raises.
        """
        call = self._free.get()
        try:
            return sorted(self._decode(call, table, opened, decoding, batch, first, seeded))
        finally:
            self._free.put(call)

    def _decode(self, call, table, opened, decoding, batch, first, seeded) -> list[int]:
        size = min(max(-(-len(table) // self.processes), _FEWEST), ROWS)
        fit, fast = FITS.index(decoding.fit), decoding.fast
        failed, waiting = [], 0
        try:
            for at in range(0, len(table), size):
                if waiting == _AHEAD:  # both sides would wait if the sockets were full of tasks and answers
                    waiting -= 1
                    failed += self._answer(call)
                head = (call, batch.number, batch.size, first + at, *decoding.size, fit, fast, seeded)
                self._send(head, table[at : at + size].copy(), batch.file, opened)
                waiting += 1
        finally:
            for _ in range(waiting):  # never give away a buffer that is still written to
                failed += self._answer(call)
        return failed

    def _send(self, head: tuple, rows: np.ndarray, memory: int, opened: Callable) -> None:
        places = {number: place for place, number in enumerate(dict.fromkeys(rows[:, 0].tolist()))}
        rows[:, 0] = [places[number] for number in rows[:, 0].tolist()]
        with opened(list(places)) as files:
            try:
                socket.send_fds(self._tasks, [HEADER.pack(*head), rows], [memory, *files])
            except (BrokenPipeError, ConnectionResetError):  # nobody is left
                raise self._died() from None

    def _answer(self, call: int) -> list[int]:
        answer = self._answers[call][0].recv(_ANSWER_BYTES)
        if answer[:1] != DONE:
            raise self._died()
        return np.frombuffer(answer, np.int32, offset=1).tolist()

    def _died(self) -> DataError:
        self._over.wait()
        return DataError(
            f"a decoding process ended {self._how}; start again, with fewer --threads if memory ran out"
        )

    def _watch(self) -> None:
        """Until a worker ends."""
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
        """Worker number `first` has ended: so do the others, before anybody is told that his call is over."""
        self.workers[first].wait()
        self._stop()
        self._how = _how(self.workers[first].returncode)
        if self.ready.is_set():
            _forget(self)
        else:
            _tell(f"the processes for it did not start: the first ended {self._how}")
        self._over.set()
        for _, answering in self._answers:
            answering.send(DIED)

    def _stop(self) -> None:
        for worker in self.workers:
            worker.kill()
        for worker, alive in zip(self.workers, self._alive, strict=True):
            worker.wait()
            os.close(alive)

    def leave(self) -> None:
        """In a fork of the process: lets go of what belongs to the parent."""
        self._tasks.close()
        for pair in self._answers:
            for end in pair:
                end.close()


def _start(tasks: int, answers: list[int]) -> tuple[subprocess.Popen, int]:
    """A worker, and a descriptor that can be read when it is ready (READY) and when it has ended."""
    alive, telling = os.pipe()
    # Not `multiprocessing`: that would import the user's main module anew.
    path = [*(entry for entry in sys.path if isinstance(entry, str)), *_PACKAGES]
    words = json.dumps([path, [tasks, telling, answers]])
    try:
        worker = subprocess.Popen(
            [os.fsdecode(multiprocessing.spawn.get_executable()), "-P", "-c", _PROGRAM, words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # its threads' memory, for nothing
            pass_fds=[tasks, telling, *answers],
            process_group=0,  # Ctrl-C is meant for the parent
        )
    except OSError:
        os.close(alive)
        raise
    finally:
        os.close(telling)
    return worker, alive


def _how(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    killed = "; the system does that when memory runs out" if code == -signal.SIGKILL else ""
    return f"by {signal.Signals(-code).name}{killed}"


def _tell(reason: str) -> None:
    sys.stderr.write(f"decoding in this process alone, which is slower: {reason}\n")
    sys.stderr.flush()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for pool in _pools.values():
        if pool is not None:
            pool.leave()
    _pools.clear()
    _spent.clear()


os.register_at_fork(after_in_child=_after_fork)
