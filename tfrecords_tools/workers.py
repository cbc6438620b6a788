"""Several processes at one list of jobs, none of which can hang the parent by dying.

Each worker has a pipe of its own: a worker that dies closes it, which the parent sees at once.
Workers that lose their parent end too.
"""

import contextlib
import mmap
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from tfrecords_tools import worker_process
from tfrecords_tools.errors import DataError

TICK_SECONDS = 0.25
_COUNTS = 3
_COUNT_BYTES = 8


class WorkerDied(Exception):
    """A job killed its worker twice. Attributes: job, done (images of it finished before), how."""

    def __init__(self, job: Any, done: int, how: str):
        super().__init__(how)
        self.job, self.done, self.how = job, done, how


class Counts:
    """How far a job is: `add` in the worker, read by the parent while the worker goes on."""

    def __init__(self, array: list[int] | memoryview, on_add: Callable[[], None] | None = None):
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
          WorkerDied: a job ended its worker twice.
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
                starting = []
                while len(running) < self._workers and (work := _next(again, queue)) is not None:
                    running.append(_Worker(self._function, self._common))
                    starting.append((running[-1], work))
                for worker, work in starting:  # all import at once: a large job waits for its reader
                    worker.give(*work)
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
        ticked = time.monotonic()

        def tick() -> None:
            nonlocal ticked
            if (now := time.monotonic()) - ticked >= TICK_SECONDS:
                ticked = now
                self._tick([array])

        for job in jobs:
            array = [0] * _COUNTS
            result = self._function(self._common, job, Counts(array, tick))
            self._tick([array])
            yield job, result
            self._totals = [total + count for total, count in zip(self._totals, array, strict=True)]

    def _tick(self, running: list) -> None:
        self._on_tick(*(self._totals[i] + sum(counts[i] for counts in running) for i in range(_COUNTS)))


def _next(again: list[tuple[Any, int]], queue: Iterator[Any]) -> tuple[Any, int] | None:
    if again:
        return again.pop()
    for job in queue:
        return job, 0
    return None


class _Worker:
    """One process and the parent's end of its pipe."""

    def __init__(self, function: Callable, common: Any):
        self.pipe, theirs = multiprocessing.Pipe()
        file = os.memfd_create("deepduel-counts", os.MFD_CLOEXEC)
        try:
            os.ftruncate(file, _COUNTS * _COUNT_BYTES)
            self._counts = _mapped(file)
            descriptors = [theirs.fileno(), file]
            self._process = worker_process.start(__name__, serve.__name__, descriptors, descriptors)
        finally:
            theirs.close()  # so that only the worker has its end, and its death is our EOF
            os.close(file)
        self.job, self.deaths = None, 0
        self._send((function, common))

    @property
    def done(self) -> list[int]:
        return list(self._counts)

    def give(self, job: Any, deaths: int) -> None:
        self.job, self.deaths = job, deaths
        for index in range(_COUNTS):
            self._counts[index] = 0
        self._send(job)

    def _send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # it died meanwhile: the parent reads its EOF next
            self.pipe.send(message)

    def dismiss(self) -> None:
        """Lets the process end by itself, which takes no time."""
        self._send(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self.end()

    def end(self) -> str:
        """Stops the process; says how it ended."""
        self.pipe.close()
        try:
            code = self._process.wait(0.05)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            return "for a reason that the system does not tell, since this process ignores SIGCHLD"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _mapped(file: int) -> memoryview:
    """The counts in the memory of a file, as integers."""
    return memoryview(mmap.mmap(file, _COUNTS * _COUNT_BYTES)).cast("q")


def serve(pipe_file: int, counts_file: int) -> None:
    """Runs jobs from a pipe until the parent dismisses this process, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    pipe = Connection(pipe_file)
    threading.Thread(target=_end_with_parent, args=(pipe_file,), daemon=True).start()
    counts = Counts(_mapped(counts_file))
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        try:
            function, common = pipe.recv()
        except (ImportError, AttributeError) as error:
            pipe.send(("error", RuntimeError(f"a worker cannot import the function to run: {error}")))
            return
        while (job := pipe.recv()) is not None:
            pipe.send(_answer(function, common, job, counts))
    os._exit(0)  # all is sent; the interpreter would take 50 ms to clear up


def _answer(function: Callable, common: Any, job: Any, counts: Counts) -> tuple[str, Any]:
    try:
        return "done", function(common, job, counts)
    except (DataError, OSError) as error:
        return "error", error
    except Exception:  # a fault of the function: the calling process raises it, with this traceback
        return "error", RuntimeError(f"in a worker:\n{traceback.format_exc()}")


def _end_with_parent(pipe_file: int) -> None:
    poll = select.poll()
    poll.register(pipe_file, 0)  # that the other side was closed is reported in any case
    poll.poll()
    os._exit(1)
