"""Commands of several workers of a cluster on this machine."""

import os
import pathlib
import socket
import subprocess
import sys
import time

PROGRAM = """
import sys
from tests.helpers import tiny_network
tiny_network.install()
from deepduel import train
sys.exit(train.entry())
"""
SECONDS = 600  # for all of a training, on a busy machine


def free_addresses(count: int) -> list[str]:
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    return addresses


class Workers:
    """Processes that train together; what they print goes to files in `folder`."""

    def __init__(self, folder: pathlib.Path, words: list[str], count: int, program: str = PROGRAM):
        """Args:
        words: of the command line, but for --cluster and --worker.
        count: how many processes; 1 trains without a cluster.
        """
        cluster = f"--cluster={','.join(free_addresses(count))}"
        folder.mkdir(parents=True, exist_ok=True)
        self.logs = [folder / f"worker-{index}.log" for index in range(count)]
        self.processes = []
        for index, log in enumerate(self.logs):
            place = [cluster, f"--worker={index}/{count}"] if count > 1 else []
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", program, *words, *place],
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()

    def codes(self, seconds: float = SECONDS) -> list[int]:
        """The exit codes of all."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in self.processes]

    def text(self, index: int) -> str:
        return self.logs[index].read_text()

    def wait_for(self, path: pathlib.Path, pattern: str) -> None:
        """Until a file is there."""
        deadline = time.monotonic() + SECONDS
        while not list(path.glob(pattern)):
            assert time.monotonic() < deadline, self.text(0)
            assert all(process.poll() is None for process in self.processes), self.text(0)
            time.sleep(0.05)
