"""The worker processes of one pool: started together, watched by one thread, and ended together."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import TypeAlias

from deepduel.decoding.worker import DIED, READY
from tfrecords_tools import worker_process

OnFailure: TypeAlias = Callable[["WorkerGroup"], None]


class WorkerGroup:
    """The processes of a pool, and the thread that waits for their end. It keeps no reference to the pool.

    Attributes:
      workers: the processes.
      ready: set once all of them can work.
      over: set once they have ended; `how` then says how the first one did.
      dismissed: whether they are meant to end.
    """

    def __init__(
        self, processes: int, tasks: int, answering: list[socket.socket], on_failure: OnFailure
    ) -> None:
        """Starts the processes.

        Args:
          tasks: descriptor of the socket from which the processes take tasks.
          answering: the processes' ends of the sockets for answers; each gets DIED when a process has ended.
          on_failure: called in the waiting thread when a process has ended though none was meant to.

        Raises:
          OSError: the system cannot start a process.
        """
        self.workers: list[subprocess.Popen] = []
        self.ready, self.over = threading.Event(), threading.Event()
        self.how = ""
        self.dismissed = False
        self._alive: list[int] = []
        self._answering = answering
        self._on_failure = on_failure
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
            self._on_failure(self)
        self.over.set()
        for end in self._answering:
            with contextlib.suppress(OSError):  # closed: nobody waits any more
                end.send(DIED)

    def _stop(self) -> None:
        self.kill()
        for worker, alive in zip(self.workers, self._alive, strict=True):
            worker.wait()
            os.close(alive)


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
