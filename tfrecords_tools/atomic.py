"""Files that appear under their names whole, or not at all: written beside their place, then renamed.

    with published(path) as file:      a text file (binary=True: bytes) to write to
    with written_beside(path) as part: a path, for libraries that open files themselves

After an error nothing is left beside, and an earlier file of that name is untouched. A kill leaves a hidden
`.NAME.HOST-PID.partial` that no reader takes for the file, and that the next write of the same name removes.
A link is followed: what it points to is replaced. Where something else than a regular file is, such as
/dev/stdout or a named pipe, it is written to as it is. `written_beside` publishes folders too, where none of
that name exists.
"""

import contextlib
import errno
import glob
import os
import pathlib
import platform
import re
import shutil
import stat
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
    if is_special(path):
        yield pathlib.Path(path)
        return
    target = pathlib.Path(os.path.realpath(path))
    _remove_leftovers(target, ending)
    partial = target.with_name(f".{target.name}.{_host()}-{os.getpid()}.partial{ending}")
    try:
        yield partial
        partial.replace(target)
    except BaseException as error:  # Ctrl-C too: no partial file stays
        _remove(partial)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = os.fspath(path)
        raise


def is_special(path: str | os.PathLike) -> bool:
    """Whether a path leads to a device, a pipe or a socket: it can be written to, but not be replaced."""
    try:
        mode = pathlib.Path(path).stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _remove_leftovers(target: pathlib.Path, ending: str) -> None:
    """Removes what processes of this machine that were killed wrote beside the target."""
    prefix, suffix = f".{target.name}.{_host()}-", f".partial{ending}"
    for path in target.parent.glob(f"{glob.escape(prefix)}*{glob.escape(suffix)}"):
        number = path.name.removeprefix(prefix).removesuffix(suffix)
        if number.isdecimal() and not _is_running(int(number)):
            _remove(path)


def _host() -> str:
    """This machine's name, for folders that several machines share."""
    return re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:32]


def _is_running(number: int) -> bool:
    """Whether a process has this number. Our own number counts as not running: an earlier process had it."""
    if number == os.getpid():
        return False
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(file: IO[Any]) -> None:
    """Flushes an open file to the disk, so that its rename never outruns its bytes."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without fsync
            raise
