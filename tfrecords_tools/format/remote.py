"""Folders behind a URL (s3://, gs://, memory://, …), through fsspec.

Object stores have no rename, but they show an object whole or not at all: publishing is one upload
from a local file. A conversion's unfinished files are local, its plan and reports lie in the store.
"""

import concurrent.futures
import contextlib
import pathlib
import tempfile
import uuid
from collections.abc import Iterator

from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import WORK, FolderEntry

_REQUESTS = 16  # at a time


class Remote:
    """A `Folder` in an object store."""

    def __init__(self, url: str):
        import fsspec

        self.root = url.rstrip("/")
        try:
            self._files, self._path = fsspec.core.url_to_fs(self.root)
        except ImportError as error:
            raise DataError(f"{url}: {error}; pip install the driver, or 'deepduel[remote]'") from error
        except ValueError as error:
            raise DataError(f"{url}: {error}") from error
        self._files.use_listings_cache = False

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return Remote, (self.root,)

    @contextlib.contextmanager
    def _spoken(self) -> Iterator[None]:
        """What an object store objects to, as a DataError of one line."""
        try:
            yield
        except (FileNotFoundError, DataError, PermissionError):
            raise
        except Exception as error:  # each driver has exceptions of its own
            raise DataError(f"{self.root}: {' '.join(str(error).split()) or type(error).__name__}") from error

    def exists(self) -> bool:
        with self._spoken():
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path))

    def walk(self) -> Iterator[FolderEntry]:
        with self._spoken():
            statuses = self._files.find(self._path, detail=True)
        start = len(self._path.rstrip("/")) + 1
        for name, status in sorted(statuses.items()):
            yield FolderEntry(name[start:].encode("utf-8", "surrogateescape"), int(status["size"] or 0), "")

    def _name(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def read_image(self, key: bytes, size: int = 0, place: int = 0) -> bytes:
        return self.read(key.decode("utf-8", "surrogateescape"))

    def head(self, entry: FolderEntry, size: int) -> bytes:
        return self.read_span(entry.key.decode("utf-8", "surrogateescape"), 0, size)

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """The bytes of an object of at most `limit` bytes."""
        with self._spoken():
            if limit is None:
                return self._files.cat_file(self._name(name))
            data = self._files.cat_file(self._name(name), start=0, end=limit + 1)
        if len(data) > limit:
            raise DataError(f"{self.root}/{name}: larger than the {limit:,} bytes that are read")
        return data

    def view(self, name: str, *, entire: bool = False) -> bytes:
        return self.read(name)

    def read_all(self, limits: dict[str, int]) -> Iterator[bytes]:
        """The bytes of each object, in order, requested many at a time; {name: largest size in bytes}."""
        with concurrent.futures.ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(lambda name: self.read(name, limit=limits[name]), limits)

    def read_span(self, name: str, start: int, size: int) -> bytes:
        """`size` bytes from `start` on; fewer where the object ends."""
        with self._spoken():
            return self._files.cat_file(self._name(name), start=start, end=start + size)

    def size(self, name: str) -> int | None:
        with self._spoken():
            try:
                self._files.invalidate_cache()
                return int(self._files.info(self._name(name))["size"])
            except FileNotFoundError:
                return None

    def sizes(self, names: list[str]) -> list[int | None]:
        """The bytes of each file, by one listing; None where there is none."""
        with self._spoken():
            self._files.invalidate_cache()
            listed = self._files.ls(self._path, detail=True)
        sizes = {status["name"].rpartition("/")[2]: int(status["size"] or 0) for status in listed}
        return [sizes.get(name) for name in names]

    def names(self, folder: str = "") -> list[str]:
        with self._spoken():
            try:
                self._files.invalidate_cache()
                return sorted(name.rstrip("/").rpartition("/")[2] for name in
                              self._files.ls(self._name(folder).rstrip("/"), detail=False))  # fmt: skip
            except FileNotFoundError:
                return []

    def write(self, name: str, data: bytes, *, synced: bool = True) -> None:
        with self._spoken():
            self._files.makedirs(self._name(name).rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(self._name(name), data)

    def create(self, name: str, data: bytes) -> None:
        """Publishes bytes under a name; an object of that name stays as it is, also one that appears now."""
        try:
            self._files.makedirs(self._name(name).rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(self._name(name), data, mode="create")
        except FileExistsError:
            pass
        except Exception:  # drivers and stores that cannot raise errors of their own
            # Of two that write at once, the last one wins.
            if self.size(name) is None:
                self.write(name, data)

    def partial(self, name: str) -> pathlib.Path:
        return pathlib.Path(tempfile.gettempdir(), f"{name}.{uuid.uuid4().hex}.partial")

    def publish(self, file: pathlib.Path, name: str) -> None:
        with self._spoken():
            self._files.put_file(str(file), self._name(name))
        file.unlink()

    def alias(self, name: str, other: str) -> None:
        with self._spoken():
            self._files.cp_file(self._name(name), self._name(other))

    def remove(self, name: str) -> None:
        with self._spoken(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._name(name))

    def clear_work(self) -> None:
        with self._spoken(), contextlib.suppress(FileNotFoundError):
            self._files.rm(self._name(WORK), recursive=True)

    def lock(self) -> object:
        """Stores have no locks: two conversions of one plan write the same bytes, of two plans one stops."""
        return self
