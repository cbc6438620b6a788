"""Regular files that someone else named: opened without waiting, and refused if they are anything else.

Opening a named pipe waits until a process writes to it, and reading some devices never ends.
"""

import errno
import os
import stat
from typing import IO


def open_descriptor(path: str | bytes | os.PathLike) -> int:
    """Opens a file for reading; links are followed.

    Raises:
      OSError: it cannot be opened, or is a directory, a named pipe, a socket or a device.
    """
    return _open(path)[0]


def _open(path: str | bytes | os.PathLike) -> tuple[int, int]:
    """An open file and its size in bytes."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
    return file, status.st_size


def read_at(file: int, size: int, start: int) -> bytes:
    """`size` bytes of an open file from `start` on, by as many reads as needed; fewer where it ends."""
    data = os.pread(file, size, start)
    while len(data) < size and (more := os.pread(file, size - len(data), start + len(data))):
        data += more
    return data


def read_through(file: int) -> None:
    """Reads an open file to its end and keeps none of it. Raises OSError where the disk fails."""
    start, size = 0, os.fstat(file).st_size  # files of /proc say 0, and may have no end
    while start < size and (data := os.pread(file, 1 << 20, start)):
        start += len(data)


def open_text(path: str | os.PathLike, *, encoding: str = "utf-8", errors: str = "strict") -> IO[str]:
    """Opens a text file, its newlines unchanged. Raises OSError as `open_descriptor` does."""
    return open(open_descriptor(path), encoding=encoding, errors=errors, newline="")


def read(path: str | bytes | os.PathLike, *, limit: int | None = None) -> bytes:
    """The bytes of a file.

    Args:
      limit: of its size in bytes; None for any size.

    Raises:
      OSError: as `open_descriptor`, or the file is larger.
    """
    file, size = _open(path)
    try:
        if limit is not None and size > limit:
            raise OSError(
                errno.EFBIG, f"{size:,} bytes, more than the {limit:,} that are read", os.fsdecode(path)
            )
        data = os.read(file, size + 1)
        if len(data) == size:
            return data
        parts = [data]  # from a file system that reads in pieces, or of a file that grows
        while part := os.read(file, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


def read_text(path: str | os.PathLike, *, limit: int | None = None) -> str:
    """The text of a file in UTF-8. Raises OSError as `read` does, and ValueError if it is not UTF-8."""
    return read(path, limit=limit).decode("utf-8")
