"""What a source of images and a folder of shards can do, wherever they lie.

Folders are `storage.Local` and `remote.Remote`; other sources of images are in `tfrecords_tools.sources`.

Names of images are `/`-separated bytes, since a file system promises no encoding; names of shards are text.
"""

import mmap
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

SYSTEM_DIRECTORY = "a directory of a notebook, an archive tool or the system"  # `FolderEntry.problem` of one
EMPTY_DIRECTORY = "an empty directory"
_SYSTEM_DIRECTORIES = frozenset(
    (b"__macosx", b"__pycache__", b"@eadir", b"#recycle", b"@recycle", b"$recycle.bin", b"#snapshot",
     b"lost+found", b"system volume information")
)  # fmt: skip
WORK = ".convert"  # in an output folder: unfinished files


def is_system_directory(name: bytes) -> bool:
    """Whether a directory's name says that it holds no images of the data set; hidden directories do not."""
    return name.startswith(b".") or name.lower() in _SYSTEM_DIRECTORIES


class FolderEntry(NamedTuple):
    """A file of a source.

    Attributes:
      key: its path in the source.
      size: in bytes.
      problem: why it cannot be read; "" if it can.
      place: a number by which the source finds it again; folders need none.
      values: what the source itself says of the image, such as {"split": "train", "category": "cats"};
        None where the directories say it.
    """

    key: bytes
    size: int
    problem: str
    place: int = 0
    values: Mapping[str, str] | None = None


class DamagedMember(Exception):
    """A file that its container cannot give back whole. The message says why."""


class Source(Protocol):
    """Where images are read from. Picklable: worker processes read from copies of it."""

    root: str

    def exists(self) -> bool: ...

    def walk(self) -> Iterator[FolderEntry]: ...

    def read_image(self, key: bytes, size: int, place: int) -> bytes:
        """An image that `walk` listed with this key, size and place. Raises DamagedMember, OSError."""

    def head(self, entry: FolderEntry, size: int) -> bytes:
        """The first bytes of a file that `walk` listed, at most `size`. Raises DamagedMember, OSError."""

    def read(self, name: str, *, limit: int | None = None) -> bytes: ...

    def size(self, name: str) -> int | None: ...


@runtime_checkable
class Folder(Source, Protocol):
    """Reads and publishes files by name. A published file appears under its name whole, or not at all."""

    def read_all(self, limits: dict[str, int]) -> Iterator[bytes]: ...

    def view(self, name: str, *, entire: bool = False) -> mmap.mmap | bytes:
        """A file's bytes, mapped into memory where possible.

        Args:
          entire: whether all of them will be used: a disk that fails to read some raises OSError now, and not
            SIGBUS where they are used.
        """

    def read_span(self, name: str, start: int, size: int) -> bytes: ...

    def sizes(self, names: list[str]) -> list[int | None]: ...

    def names(self, folder: str = "") -> list[str]: ...

    def write(self, name: str, data: bytes, *, synced: bool = True) -> None: ...

    def create(self, name: str, data: bytes) -> None: ...

    def partial(self, name: str) -> pathlib.Path: ...

    def publish(self, file: pathlib.Path, name: str) -> None: ...

    def alias(self, name: str, other: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def clear_work(self) -> None: ...

    def lock(self) -> object: ...
