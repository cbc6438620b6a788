"""How much RAM this process may still use, in bytes."""

import contextlib
import math
import pathlib
from collections.abc import Iterator

import psutil

_CGROUP = pathlib.Path("/sys/fs/cgroup")  # of the container that this process may run in
_processes = 1  # among which the memory is divided


@contextlib.contextmanager
def divided_among(processes: int) -> Iterator[None]:
    """A block in which `available_bytes` is this process' part of the memory of so many equal processes."""
    global _processes
    before, _processes = _processes, processes
    try:
        yield
    finally:
        _processes = before


def available_bytes(cgroup: pathlib.Path = _CGROUP) -> int:
    """The RAM that can be allocated without swapping, within the limits of the machine and of the container.

    Args:
      cgroup: folder with the container's limits (cgroup v2).
    """
    return int(min(psutil.virtual_memory().available, _left_to_container(cgroup))) // _processes


def _left_to_container(cgroup: pathlib.Path) -> float:
    """Infinity where there is no limit. The cgroup counts pages of files as used, but they can be dropped."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return math.inf
        used = int((cgroup / "memory.current").read_text())
        fields = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        droppable = int(fields["file"]) - int(fields["shmem"])
    except (OSError, ValueError, KeyError):
        return math.inf
    return max(int(limit) - used + droppable, 0)
