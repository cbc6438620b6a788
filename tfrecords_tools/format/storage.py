"""Where images come from and shards go to: a local folder here, object stores in `remote`.

Names are `/`-separated bytes for images (a file system promises no encoding), text for shards.
Whatever is published appears whole under its name, or not at all.
"""

import collections
import contextlib
import ctypes
import errno
import mmap
import os
import pathlib
import shutil
import stat
import uuid
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from tfrecords_tools import regular_files
from tfrecords_tools.atomic import sync
from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import (
    EMPTY_DIRECTORY,
    SYSTEM_DIRECTORY,
    WORK,
    Folder,
    FolderEntry,
    is_system_directory,
)

IMAGE_SUFFIXES = frozenset(
    b".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .dib .tif .tiff .avif .heic .heif .jp2 .j2k .ppm .pgm .pbm "
    b".pnm .ico .tga .mpo .apng".split()
)
_MOST_LINKS = 100  # followed to one directory: links to directories of links could make a walk endless
_Identity = tuple[int, int]  # device and inode


class _Level(NamedTuple):
    """A directory of a walk: its key with a slash at the end, its entries not visited yet."""

    folder: bytes
    identity: _Identity
    entries: Iterator[os.DirEntry[bytes]]
    problem: str


class Local:
    """A folder on this machine."""

    def __init__(self, root: str | os.PathLike):
        self.root = os.fspath(root)
        self._root = os.fsencode(root)

    def exists(self) -> bool:
        return os.path.isdir(self.root)  # noqa: PTH112, a Path of "" is the current directory

    def walk(self) -> Iterator[FolderEntry]:
        """Every file below the folder, links followed, in sorted order within each directory."""
        top = os.stat(self._root)  # noqa: PTH116, bytes
        linked: collections.Counter[_Identity] = collections.Counter()  # visits of a directory through links
        levels = [_Level(b"", (top.st_dev, top.st_ino), *self._listed(b""))]  # no recursion, at any depth
        while levels:
            level = levels[-1]
            entry = next(level.entries, None)
            if level.problem or entry is None:
                if level.problem:
                    yield FolderEntry(level.folder or b".", 0, level.problem)
                levels.pop()
                continue
            key = level.folder + entry.name
            try:
                status = entry.stat()
            except OSError as error:
                yield FolderEntry(key, 0, _broken(entry, error))
                continue
            identity = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode):
                yield FolderEntry(key, status.st_size, "")
            elif not stat.S_ISDIR(status.st_mode):
                yield FolderEntry(key, 0, "not a regular file")
            elif is_system_directory(entry.name):
                yield FolderEntry(key + b"/", 0, SYSTEM_DIRECTORY)
            elif suffix(key) in IMAGE_SUFFIXES:
                yield FolderEntry(key, 0, "a directory named like an image; not looked into")
            elif any(above.identity == identity for above in levels):
                yield FolderEntry(key, 0, "link loop: the directory contains itself")
            elif entry.is_symlink() and linked[identity] == _MOST_LINKS:
                yield FolderEntry(key, 0, f"a link to a directory that {_MOST_LINKS} links led to before")
            else:
                if entry.is_symlink():
                    linked[identity] += 1
                levels.append(_Level(key + b"/", identity, *self._listed(key)))

    def _listed(self, folder: bytes) -> tuple[Iterator[os.DirEntry[bytes]], str]:
        """The entries of a directory in sorted order, and why it cannot be read ("" if it can)."""
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:  # noqa: PTH118, bytes
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            return iter(()), f"unreadable directory: {error.strerror}"
        return iter(listed), "" if listed or not folder else EMPTY_DIRECTORY

    def read_image(self, key: bytes, size: int = 0, place: int = 0) -> bytes:
        """A file's bytes; its key is enough to find it. Raises PermissionError, other OSError."""
        return regular_files.read(self._root + b"/" + key)

    def head(self, entry: FolderEntry, size: int) -> bytes:
        return self.read_span(os.fsdecode(entry.key), 0, size)

    def path(self, name: str) -> pathlib.Path:
        return pathlib.Path(self.root, name)

    def size(self, name: str) -> int | None:
        """A published file's bytes; None when there is no regular file of that name."""
        try:
            status = os.stat(f"{self.root}/{name}")  # noqa: PTH116, pathlib is slow for 10,000 shards
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def sizes(self, names: list[str]) -> list[int | None]:
        """The bytes of each published file; None where there is none."""
        return [self.size(name) for name in names]

    def names(self, folder: str = "") -> list[str]:
        """Names of what lies in the folder, sorted; empty when it does not exist."""
        try:
            return sorted(os.listdir(self.path(folder)))  # noqa: PTH208, names and not paths
        except FileNotFoundError:
            return []

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """The bytes of a file of at most `limit` bytes."""
        return regular_files.read(f"{self.root}/{name}", limit=limit)

    def read_all(self, limits: dict[str, int]) -> Iterator[bytes]:
        """The bytes of each file, in order; {name: largest size in bytes}."""
        return (self.read(name, limit=limit) for name, limit in limits.items())

    def read_span(self, name: str, start: int, size: int) -> bytes:
        """`size` bytes from `start` on; fewer where the file ends."""
        with self._opened(name) as file:
            return regular_files.read_at(file, size, start)

    def view(self, name: str, *, entire: bool = False) -> mmap.mmap | bytes:
        with self._opened(name) as file:
            if entire:
                regular_files.read_through(file)
            return mmap.mmap(file, 0, access=mmap.ACCESS_READ) if os.fstat(file).st_size else b""

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        file = regular_files.open_descriptor(f"{self.root}/{name}")
        try:
            yield file
        finally:
            os.close(file)

    def alias(self, name: str, other: str) -> None:
        """Makes a published file known by another name too; a copy where links are not possible."""
        self.remove(other)
        try:
            os.link(self.path(name), self.path(other))
        except OSError:
            self.write(other, self.read(name))

    def write(self, name: str, data: bytes, *, synced: bool = True) -> None:
        """Publishes bytes under a name; not `synced`, a power cut may leave the file empty."""
        self._written(name, data, synced=synced).replace(self.path(name))

    def create(self, name: str, data: bytes) -> None:
        """Publishes bytes under a name; a file of that name stays as it is, also one that appears now."""
        partial = self._written(name, data)
        try:
            os.link(partial, self.path(name))
        except FileExistsError:
            pass
        except OSError:  # a file system without links: of two at once, the last one wins
            if self.size(name) is None:
                partial.replace(self.path(name))
        partial.unlink(missing_ok=True)

    def _written(self, name: str, data: bytes, *, synced: bool = True) -> pathlib.Path:
        partial = self.partial(pathlib.PurePosixPath(name).name)
        with partial.open("wb") as file:
            file.write(data)
            if synced:
                sync(file)
        return partial

    def partial(self, name: str) -> pathlib.Path:
        """Where a file lies until it is published; its own name each time, on any machine."""
        path = self.path(f"{WORK}/{name}.{uuid.uuid4().hex}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, file: pathlib.Path, name: str) -> None:
        """Moves a finished, synced file of the same file system to its name."""
        file.replace(self.path(name))

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def clear_work(self) -> None:
        """Removes what only a running conversion needs."""
        shutil.rmtree(self.path(WORK), ignore_errors=True)

    def lock(self) -> object:
        """Takes the folder's lock. Raises DataError when another conversion holds it."""
        return lock(self.path(f"{WORK}/lock"))


def open_folder(url: str | os.PathLike) -> Folder:
    """The folder that a path or a URL names: a `Local`, or a `remote.Remote`."""
    if is_remote(url):
        from tfrecords_tools.format import remote  # fsspec takes its time

        return remote.Remote(os.fspath(url))
    return Local(os.fspath(url).removeprefix("file://"))


def is_remote(url: str | os.PathLike) -> bool:
    """Whether a name is a URL of an object store."""
    return "://" in os.fspath(url) and not os.fspath(url).startswith("file://")


def suffix(key: bytes) -> bytes:
    """A key's file ending in lower case, with the dot: b".jpg"."""
    stem, dot, ending = key.rpartition(b"/")[2].rpartition(b".")
    return (dot + ending).lower() if stem.strip(b".") else b""


def start_writing(file: IO[bytes], start: int, end: int) -> None:
    """Has the system write these bytes of an open file soon, so that `sync` need not wait for them all."""
    file.flush()
    if _sync_file_range is not None:
        _sync_file_range(file.fileno(), start, end - start, 2)  # SYNC_FILE_RANGE_WRITE; advice: may fail


def _find_sync_file_range() -> Any:
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux; Python has no such call
    if function is not None:
        function.argtypes = ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint
    return function


_sync_file_range = _find_sync_file_range()


def lock(path: pathlib.Path) -> object:
    """Takes the lock of an output folder; it falls with the process, however that ends.

    Raises:
      DataError: another process holds it.
      PermissionError: the folder may not be written to.
    """
    import filelock  # takes 15 ms, and workers lock nothing

    path.parent.mkdir(parents=True, exist_ok=True)
    # A process that was killed just now takes a moment to release it. A lock that is a mere file
    # would outlive a killed process, so there is no such fallback.
    file_lock = filelock.FileLock(path, timeout=1, fallback_to_soft=False)
    try:
        file_lock.acquire()
    except filelock.Timeout:
        raise DataError(
            f"{path.parent.parent}: another conversion is writing here; wait for it, or stop it"
        ) from None
    except PermissionError:
        raise
    except (OSError, NotImplementedError):
        pass  # a file system without locks: unfinished files have names of their own
    return file_lock


def _broken(entry: os.DirEntry, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "link loop"
    if entry.is_symlink():
        return f"broken link: {error.strerror}"
    return f"unreadable: {error.strerror}"
