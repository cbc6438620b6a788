"""How much RAM there is to be had."""

import math
import pathlib

import psutil

_GROUP = pathlib.Path("/sys/fs/cgroup")  # of the container that this process may be in


def available_bytes() -> int:
    """What can be taken without swapping: of the machine's RAM, and of what the container is allowed."""
    return int(min(psutil.virtual_memory().available, _left_to_container()))


def _left_to_container() -> float:
    """Infinity where there is no limit. Pages of files count as taken there, though they can be dropped."""
    try:
        limit = (_GROUP / "memory.max").read_text().strip()
        if limit == "max":
            return math.inf
        taken = int((_GROUP / "memory.current").read_text())
        fields = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        droppable = int(fields["file"]) - int(fields["shmem"])
    except (OSError, ValueError, KeyError):
        return math.inf
    return max(int(limit) - taken + droppable, 0)
