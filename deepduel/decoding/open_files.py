"""How many files a process may keep open."""

import os
import pathlib
import resource

_SPARE_FILES = 256  # descriptors that the rest of the process may need


def allowed(wanted: int) -> int:
    """How many of `wanted` files may stay open; raises the process's own limit where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) if pathlib.Path("/proc/self/fd").exists() else _SPARE_FILES  # noqa: PTH208, names and not paths
    needed = used + wanted + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft - used - _SPARE_FILES), 0)
