"""Files that appear under their names whole, or not at all: written beside their place, then renamed.

    with published(path) as file:      a text file (binary=True: bytes) to write to
    with written_beside(path) as part: a path, for libraries that open files themselves

After an error nothing is left beside, and an earlier file of that name is untouched; a kill leaves a hidden
`.NAME.PID.partial` that no reader takes for the file. A link is followed: what it points to is replaced.
Where something else than a regular file is, such as /dev/stdout or a named pipe, it is written to as it is.
"""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any


@contextlib.contextmanager
def published(path: str | os.PathLike, *, binary: bool = False, durable: bool = False) -> Iterator[IO[Any]]:
    """A new file that replaces `path` when the block ends without an error.

    Args:
      binary: the file takes bytes; by default text, written as UTF-8 with its newlines unchanged.
      durable: wait until the disk has the content (fsync) before it is renamed.

    Raises:
      OSError: the folder does not exist or may not be written to, or the disk is full.
    """
    with (
        written_beside(path) as partial,
        partial.open("wb") if binary else partial.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file
        if durable:
            sync(file)


@contextlib.contextmanager
def written_beside(path: str | os.PathLike, *, ending: str = "") -> Iterator[pathlib.Path]:
    """A path in the same folder, which is renamed to `path` when the block ends without an error.

    Args:
      ending: of the path's name, for libraries that go by it, such as ".keras".
    """
    target = pathlib.Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        yield target
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial{ending}")
    try:
        yield partial
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync(file: IO[Any]) -> None:
    """Flushes an open file to the disk, so that its rename never outruns its bytes."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without fsync
            raise
