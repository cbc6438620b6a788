"""Data workers for tests: servers in threads of this process, or processes of `deepduel.data_service`."""

import contextlib
import os
import pathlib
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

from deepduel.reading import data_protocol
from deepduel.reading.data_server import DataServer

_ROOT = pathlib.Path(__file__).parents[2]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Thread:
    """A server in a thread, whose connections can be cut."""

    def __init__(self, port: int | None = None) -> None:
        port = port or free_port()
        self.address = f"127.0.0.1:{port}"
        self.server = DataServer(data_protocol.Address("127.0.0.1", port))
        self.connections: list[socket.socket] = []
        process = self.server.process_request
        self.server.process_request = lambda request, client: (
            self.connections.append(request),
            process(request, client),
        )
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Ends as a process does: nobody listens any more, and all connections are closed."""
        self.server.shutdown()
        self.server.server_close()
        self.cut()

    def cut(self) -> None:
        """Closes all connections."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()


@contextlib.contextmanager
def threads(count: int) -> Iterator[list[Thread]]:
    """So many data workers in this process."""
    workers = [Thread() for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()


class Process:
    """A process of `deepduel.data_service`."""

    def __init__(self, port: int | None = None) -> None:
        """Starts it and returns at once, see `wait`."""
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deepduel.data_service", f"--port={self.port}"],
            env=os.environ | {"PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def wait(self) -> "Process":
        """Until it listens."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 300)[0], "the data worker did not start"
        assert "data worker on" in self.process.stdout.readline()
        return self

    def end(self) -> None:
        """Kills it."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def processes(count: int) -> Iterator[list[Process]]:
    """So many data workers in processes of their own."""
    workers = [Process() for _ in range(count)]
    try:
        yield [worker.wait() for worker in workers]
    finally:
        for worker in workers:
            worker.end()
