"""The other processes of a team: small values exchanged with them, and what happens when one of them ends.

Each worker has a connection to worker 0 (see `meeting`), over which pass

    "beat"              every two seconds, as a sign of life, and to see whether the other machine
                        acknowledges it (see `channel`)
    "value", VALUE      a worker's part of `gather`, and from worker 0 the list of all parts
    "ended", REASON     this worker ends; None once all have done their work
    "failed", TEXT, S   worker 0 says which worker has ended, been killed or stopped; all end within S seconds

A process that waits for a collective operation of TensorFlow cannot be interrupted, so that its own threads
end it (`on_failure`). That is safe at any moment: all files are published by rename.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from deepduel.training.channel import Channel
from deepduel.training.cluster import Cluster

SILENCE_SECONDS = (
    40.0  # after which a worker counts as stopped; tracing may keep Python busy for many seconds
)
_BEAT_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0  # for this process to end by itself, when another one has ended with a reason


class Peers:
    """The connections of this process to the others of its team.

    `gather` waits for as long as it takes; when another process is lost, `on_failure` is called with a
    sentence that says which, in another thread.
    """

    def __init__(self, cluster: Cluster, channels: Mapping[int, Channel], on_failure: Callable[[str], None]):
        """Args:
        channels: of worker 0 to all others; of the others to worker 0.
        """
        self._cluster = cluster
        self._channels = channels
        self._on_failure = on_failure
        self._values: dict[int, queue.SimpleQueue] = {index: queue.SimpleQueue() for index in channels}
        self._ending = threading.Event()
        self._failing = threading.Lock()
        for index in channels:
            for target in self._listen, self._beat:
                threading.Thread(
                    target=target, args=(index,), name=f"{target.__name__} {index}", daemon=True
                ).start()

    def gather(self, value: Any) -> list[Any]:
        """The values of all workers in the order of their numbers; all have to call it.

        Args:
          value: None, a bool, int, float, str, bytes, or lists and dicts of these.
        """
        if self._cluster.index:
            self._send(0, "value", value)
            return self._values[0].get()
        values = [value, *(self._values[index].get() for index in sorted(self._channels))]
        self._send_all("value", values)
        return values

    def end(self, reason: str | None) -> None:
        """Tells the others that this process ends, and why; None once all have done their work."""
        self._ending.set()
        self._send_all("ended", reason)

    def expect_end(self) -> None:
        """Lets the others end, with a reason or without: all have agreed to."""
        self._ending.set()

    def wait_for_failure(self, seconds: float) -> None:
        """Gives the threads time to notice that another process is lost, of which an operation failed."""
        self._ending.wait(seconds)

    def _listen(self, index: int) -> None:
        name, finished = self._cluster.name(index), False
        try:
            while True:
                kind, *values = self._channels[index].receive()
                if kind == "value":
                    self._values[index].put(values[0])
                elif kind == "failed":
                    self._fail(values[0], patience=values[1])
                elif kind == "ended" and values[0] is None:
                    finished = True
                elif kind == "ended":
                    self._fail(f"{name} has ended: {values[0]}", patience=_PATIENCE_SECONDS)
        except TimeoutError:
            self._fail(f"{name} has not answered for {SILENCE_SECONDS:.0f} seconds")
        except (EOFError, OSError, ValueError):
            if not finished:
                self._fail(f"{name} was killed, or its machine can no longer be reached")

    def _fail(self, sentence: str, *, patience: float = 0.0) -> None:
        with self._failing:
            if self._ending.is_set():
                return
            if not self._cluster.index:
                self._send_all("failed", sentence, patience)
            if not self._ending.wait(patience):
                self._on_failure(sentence)

    def _beat(self, index: int) -> None:
        while True:
            try:
                self._channels[index].send("beat")
            except OSError:
                return  # `_listen` notices too
            time.sleep(_BEAT_SECONDS)

    def _send_all(self, *message: Any) -> None:
        for index in self._channels:
            self._send(index, *message)

    def _send(self, index: int, *message: Any) -> None:
        with contextlib.suppress(OSError):  # `_listen` notices too
            self._channels[index].send(*message)
