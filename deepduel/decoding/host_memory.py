"""How much RAM this process may still use, in bytes."""

import math
import pathlib

import psutil

_CGROUP = pathlib.Path("/sys/fs/cgroup")  # of the container that this process may run in


def available_bytes(cgroup: pathlib.Path = _CGROUP) -> int:
    """The RAM that can be allocated without swapping, within the limits of the machine and of the container.

    Args:
      cgroup: folder with the container's limits (cgroup v2).
    """
    return int(min(psutil.virtual_memory().available, _left_to_container(cgroup)))


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
