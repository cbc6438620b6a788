"""How many CPU cores this process may use."""

import math
import os
import pathlib

_CGROUP = pathlib.Path("/sys/fs/cgroup")  # of the container that this process may run in


def available(cgroup: pathlib.Path = _CGROUP) -> int:
    """Cores that the process may run on, and no more than the container's quota gives time for; at least 1.

    Args:
      cgroup: folder with the container's limits (cgroup v2).
    """
    return max(1, min(len(os.sched_getaffinity(0)), _quota(cgroup)))


def _quota(cgroup: pathlib.Path) -> int:
    """The container's quota in cores, rounded up; without one, more than any machine has."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # "max 100000" among them
        return 1 << 20
