"""What a folder of images or shards can do, wherever it lies: `storage.Local` and `remote.Remote`.

Names of images are `/`-separated bytes, since a file system promises no encoding; names of shards are text.
"""

import mmap
import pathlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

WORK = ".convert"  # in an output folder: unfinished files


class FolderEntry(NamedTuple):
    """A file of an input folder: its key, its size in bytes, and why it cannot be read ("" if it can)."""

    key: bytes
    size: int
    problem: str


class Folder(Protocol):
    """Reads and publishes files by name. A published file appears under its name whole, or not at all."""

    root: str

    def exists(self) -> bool: ...

    def walk(self) -> Iterator[FolderEntry]: ...

    def read_image(self, key: bytes) -> bytes: ...

    def read(self, name: str, *, limit: int | None = None) -> bytes: ...

    def view(self, name: str) -> mmap.mmap | bytes: ...

    def read_span(self, name: str, start: int, size: int) -> bytes: ...

    def size(self, name: str) -> int | None: ...

    def names(self, folder: str = "") -> list[str]: ...

    def write(self, name: str, data: bytes, *, synced: bool = True) -> None: ...

    def partial(self, name: str) -> pathlib.Path: ...

    def publish(self, file: pathlib.Path, name: str) -> None: ...

    def alias(self, name: str, other: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def clear_work(self) -> None: ...

    def lock(self) -> object: ...
