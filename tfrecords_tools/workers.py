"""Several processes at one list of jobs, none of which can hang the parent by dying.

Each worker has a pipe of its own: a worker that dies closes it, which the parent sees at once.
Workers that lose their parent end too. They are forked where that is safe, else spawned, which
costs each of them half a second of imports.
"""

import contextlib
import ctypes
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from multiprocessing import sharedctypes
from multiprocessing.connection import Connection
from typing import Any

from tfrecords_tools.errors import DataError

TICK_SECONDS = 0.25
_COUNTS = 3


class WorkerDied(Exception):
    """A job killed its worker twice. Attributes: job, done (images of it finished before), how."""

    def __init__(self, job: Any, done: int, how: str):
        super().__init__(how)
        self.job, self.done, self.how = job, done, how


class Counts:
    """How far a job is: `add` in the worker, read by the parent while the worker goes on."""

    def __init__(self, array: MutableSequence[int], on_add: Callable[[], None] | None = None):
        self.array, self._on_add = array, on_add

    def add(self, images: int, size: int = 0, rejected: int = 0) -> None:
        self.array[0] += images
        self.array[1] += size
        self.array[2] += rejected
        if self._on_add is not None:
            self._on_add()


class WorkerPool:
    """Runs `function(job, counts) -> result` for many jobs.

    Args:
      function: a module's function (it is imported by the workers), called as
        `function(common, job, counts)`.
      common: what every call gets first; pickled once per worker.
      workers: processes; 1 works in this process.
      on_tick: called with (images, bytes, rejected) so far, a few times a second.
    """

    def __init__(self, function: Callable, common: Any, *, workers: int,
                 on_tick: Callable[[int, int, int], None]):  # fmt: skip
        self._function, self._common, self._workers = function, common, workers
        self._on_tick = on_tick
        self._totals = [0] * _COUNTS

    def run(self, jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yields (job, result) in the order in which jobs end.

        Raises:
          Died: a job ended its worker twice.
          Exception: whatever the function raised; the other workers are stopped.
        """
        if self._workers == 1:
            yield from self._run_here(jobs)
            return
        queue = iter(jobs)
        running: list[_Worker] = []
        again: list[tuple[Any, int]] = []
        try:
            while True:
                while len(running) < self._workers and (work := _next(again, queue)) is not None:
                    running.append(_Worker(self._function, self._common))
                    running[-1].give(*work)
                if not running:
                    return
                pipes = [worker.pipe for worker in running]
                ready = multiprocessing.connection.wait(pipes, TICK_SECONDS)
                for worker in [worker for worker in running if worker.pipe in ready]:
                    job, deaths, counts = worker.job, worker.deaths, worker.done
                    try:
                        kind, value = worker.pipe.recv()
                    except (EOFError, OSError):
                        running.remove(worker)
                        how = worker.end()
                        if deaths:
                            raise WorkerDied(job, counts[0], how) from None
                        again.append((job, 1))
                        continue
                    if kind == "error":
                        raise value
                    for index, count in enumerate(counts):
                        self._totals[index] += count
                    if (work := _next(again, queue)) is not None:
                        worker.give(*work)
                    else:
                        running.remove(worker)
                        worker.dismiss()
                    yield job, value
                self._tick([worker.done for worker in running])
        finally:
            for worker in running:
                worker.end()

    def _run_here(self, jobs: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for job in jobs:
            array = [0] * _COUNTS
            counts = Counts(array, functools.partial(self._tick, [array]))
            yield job, self._function(self._common, job, counts)
            self._totals = [total + count for total, count in zip(self._totals, array, strict=True)]

    def _tick(self, running: list) -> None:
        self._on_tick(*(self._totals[i] + sum(counts[i] for counts in running) for i in range(_COUNTS)))


def _next(again: list[tuple[Any, int]], queue: Iterator[Any]) -> tuple[Any, int] | None:
    if again:
        return again.pop()
    for job in queue:
        return job, 0
    return None


def _start_method() -> str:
    """fork from a process without other threads (it would copy the locks they hold, held for ever).

    NumPy's BLAS threads do not count: they are stopped and started around a fork. TensorFlow's do.
    """
    alone = threading.active_count() == 1 and not {"tensorflow", "grpc"} & set(sys.modules)
    return "fork" if alone and sys.platform == "linux" else "spawn"


class _Worker:
    """One process and the parent's end of its pipe."""

    def __init__(self, function: Callable, common: Any):
        context: Any = multiprocessing.get_context(_start_method())
        self._array = sharedctypes.RawArray(ctypes.c_int64, _COUNTS)
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, function, common, self._array), daemon=True
        )
        with warnings.catch_warnings():  # from Python 3.12 on, of a fork beside BLAS threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()  # so that only the worker holds its end, and its death is our EOF
        self.job, self.deaths = None, 0

    @property
    def done(self) -> list[int]:
        return list(self._array)

    def give(self, job: Any, deaths: int) -> None:
        self.job, self.deaths = job, deaths
        self._array[:] = [0] * _COUNTS
        with contextlib.suppress(OSError):  # it died meanwhile: the parent reads its EOF next
            self.pipe.send(job)

    def dismiss(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(None)  # closing would not do: workers forked later hold this end too
        self.pipe.close()
        self._process.join(5)
        self.end()

    def end(self) -> str:
        """Stops the process; says how it ended."""
        self.pipe.close()
        self._process.join(0.05)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        code = self._process.exitcode
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _serve(pipe: Connection, function: Callable, common: Any, array: MutableSequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    threading.Thread(target=_follow_parent, daemon=True).start()
    counts = Counts(array)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        if job is None:
            return
        try:
            answer = "done", function(common, job, counts)
        except (DataError, OSError) as error:
            answer = "error", error
        except Exception:
            answer = "error", RuntimeError(f"in a worker:\n{traceback.format_exc()}")
        try:
            pipe.send(answer)
        except OSError:
            return


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
