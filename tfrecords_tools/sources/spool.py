"""A local copy of images that their container gives only in order, one after another in one file.

Parquet files, compressed tar files and TensorFlow Datasets can be read from the start, but a conversion reads
in the order of a shuffle. So the images' bytes are written to `images.bin` as they come by, and the list of
them to `images.jsonl`, which appears when both are complete. An interrupted conversion finds them again.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from typing import IO

from tfrecords_tools import atomic, regular_files
from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import DamagedMember, FolderEntry


class Spool:
    """A spool file and its list.

    Attributes:
      folder: where they lie.
    """

    def __init__(self, folder: str | None, identity: object):
        """Names the files; nothing is written yet.

        Args:
          folder: that exists or is made; None for a temporary one, which is removed with this object.
          identity: of what is spooled, as JSON: with another one, nothing of an earlier run is used.
        """
        if folder is None:
            folder = tempfile.mkdtemp(prefix="deepduel-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        self.folder = pathlib.Path(folder)
        self._data = self.folder / f"images-{name}.bin"
        self._list = self.folder / f"images-{name}.jsonl"
        self._writing: IO[bytes] | None = None

    def __reduce__(self) -> tuple:
        return _restored, (str(self.folder), str(self._data))

    def entries(
        self, walk: Callable[[Callable[[bytes], int]], Iterator[FolderEntry]]
    ) -> Iterator[FolderEntry]:
        """The entries of an earlier, finished walk; else those of this one, which are kept.

        Args:
          walk: called with a function that takes an image's bytes and gives its place.

        Raises:
          DataError: the disk is full.
        """
        if self._list.exists():
            with regular_files.open_text(self._list) as lines:
                yield from map(_entry, lines)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            yield from self._spooled(walk)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DataError(
                f"{self.folder}: no space left on the disk; the images are copied there, because their "
                "files can only be read in order, and take up their whole size; free some, or choose an "
                "--output_dir on another disk"
            ) from error

    def _spooled(
        self, walk: Callable[[Callable[[bytes], int]], Iterator[FolderEntry]]
    ) -> Iterator[FolderEntry]:
        with (
            atomic.written_beside(self._list) as list_path,  # renamed last: it says that both are complete
            atomic.written_beside(self._data) as data_path,
            data_path.open("w+b") as data,
            list_path.open("w") as lines,
        ):

            def keep(image: bytes) -> int:
                place = data.tell()
                data.write(image)
                return place

            self._writing = data
            for entry in walk(keep):
                lines.write(json.dumps([_text(entry.key), *entry[1:]]) + "\n")
                yield entry
            self._writing = None
            atomic.sync(data)
            atomic.sync(lines)

    def read(self, size: int, place: int) -> bytes:
        """An image's bytes. Raises DamagedMember when the file is shorter than it was."""
        if self._writing is not None:  # a listing that looks at what it lists
            self._writing.flush()
            return os.pread(self._writing.fileno(), size, place)
        file = regular_files.open_descriptor(self._data)
        try:
            data = os.pread(file, size, place)
        finally:
            os.close(file)
        if len(data) != size:
            raise DamagedMember("its copy is cut off; remove the folder .convert in --output_dir")
        return data

    def remove(self) -> None:
        """Removes both files, when the conversion is done."""
        for path in (self._list, self._data):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # unless it holds something else


class Spooled:
    """What sources share that read from a spool, or may have to."""

    root: str
    _spool: Spool | None

    @property
    def is_copied(self) -> bool:
        """Whether its images are read from a copy of them."""
        return self._spool is not None

    def read_image(self, key: bytes, size: int, place: int) -> bytes:
        if self._spool is None:
            raise NotImplementedError("a source without a spool reads its images itself")
        return self._spool.read(size, place)

    def head(self, entry: FolderEntry, size: int) -> bytes:
        return self.read_image(entry.key, min(size, entry.size), entry.place)

    def close(self) -> None:
        """Removes the spool, when the conversion is done."""
        if self._spool:
            self._spool.remove()


def _restored(folder: str, data: str) -> Spool:
    spool = Spool.__new__(Spool)
    spool.folder, spool._data, spool._writing = pathlib.Path(folder), pathlib.Path(data), None
    return spool


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _entry(line: str) -> FolderEntry:
    key, *rest = json.loads(line)
    return FolderEntry(key.encode("utf-8", "surrogateescape"), *rest)
