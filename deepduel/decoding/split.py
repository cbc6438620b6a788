"""One split of a data folder, opened for reading by record number.

The index tables beside the shards hold each image's offset, so reading record 700,000 costs what
record 0 costs: one read at a known offset, no parsing, no checksum.

Shards are read with pread and not through a memory map: when a mapped file shrinks, or its disk or network
file system fails, the process is killed by SIGBUS without a message.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import weakref
from collections.abc import Iterator, Sequence

import numpy as np

from deepduel.decoding import open_files, parts, remote_cache, shard_tables
from deepduel.decoding.remote_shards import RemoteShards
from tfrecords_tools import regular_files
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import records, split_names, storage
from tfrecords_tools.images.stored import stored_pixels

_AHEAD_BYTES = 4 << 20


class Split:
    """Records 0 … len - 1 of one split, in the order in which they lie in the shards.

    Attributes:
      data_dir, name: the folder of shards and the split's name.
      part: the part of a split that this is; None for a whole split.
      remote: its shards in an object store; None where they are files of this machine.
      manifest: the manifest of the whole folder.
      shards: the split's entries in the manifest.
      labels: int32 per record by axis, {axis: [N]}; -1 for no label.
      sizes: int32 [N, 2], height and width of each image in pixels.
      encoding: uint8 [N], an index into `records.ENCODINGS`.
      bad: {record number: reason} of the records that have failed to decode so far.
    """

    def __init__(self, data_dir: str | os.PathLike, name: str) -> None:
        """Opens a split of a folder of shards, or of a URL.

        Raises:
          UsageError: there is no such split; "validation" also opens the only one called val, Valid or dev.
          DataError: the folder, or one of its files, is missing or damaged.

        Examples:
          >>> split = Split("SHARDS", "train")
          >>> split.pixels(0).shape
          (32, 32, 3)
        """
        self.data_dir = pathlib.Path(data_dir)
        self._folder = storage.open_folder(data_dir)
        self.manifest = manifests.load(data_dir)
        self.part = parts.parse(name)
        full_name = split_names.find(self.manifest.splits, self.part.split if self.part else name)
        if full_name is None:
            raise UsageError(
                f"{data_dir} has no split {name!r}; it has {', '.join(sorted(self.manifest.splits))}: name "
                "one of these or a part of one, such as 'train[80%:]', or convert the images again with "
                "--split=train:0.8,validation:0.2 to make splits"
            )
        self.name = full_name
        self.shards = self.manifest.splits[full_name].shards
        self.bad: dict[int, str] = {}
        counts = np.array([shard.records for shard in self.shards], np.int64)
        self._firsts = np.cumsum(counts) - counts  # the number of each shard's first record
        self._rows: np.ndarray | None = None  # numbers in the whole split of the records of a part
        self._load(int(counts.sum()))
        self._files: list[int] = []  # descriptors of the first shards, or of all
        weakref.finalize(self, _close, self._files)
        self.remote: RemoteShards | None = None
        if storage.is_remote(data_dir):
            self.remote = RemoteShards(self._folder, self.shards)
        else:
            for number in range(open_files.allowed(len(self.shards))):
                self._files.append(self._open(number))
        if self.part is not None:
            self.part = dataclasses.replace(self.part, split=full_name)
            self._keep(self.part.records(self))
            self.name = str(self.part)

    def _load(self, count: int) -> None:
        """Fills the columns from the shards' tables; takes about 45 bytes a record, and never more."""
        axes = list(self.manifest.axes)
        tables = shard_tables.read(self._folder, self.shards, self.manifest.axes)
        self._offset, self._image_offset = np.empty(count, np.int64), np.empty(count, np.int64)
        self._size, self._image_size = np.empty(count, np.int32), np.empty(count, np.int32)
        self.encoding = np.empty(count, np.uint8)
        self.sizes = np.empty((count, 2), np.int32)
        self.labels = {axis: np.empty(count, np.int32) for axis in axes}
        for first, table in zip(self._firsts.tolist(), tables, strict=True):
            rows = slice(first, first + len(table))
            self._offset[rows], self._size[rows] = table["offset"], table["size"]
            self._image_offset[rows], self._image_size[rows] = table["image_offset"], table["image_size"]
            self.encoding[rows] = table["encoding"]
            self.sizes[rows, 0], self.sizes[rows, 1] = table["height"], table["width"]
            for column, axis in enumerate(axes):
                self.labels[axis][rows] = table["labels"][:, column]

    def _keep(self, rows: np.ndarray) -> None:
        """Leaves out all records but these, which become 0 … len - 1."""
        for name in ("_offset", "_image_offset", "_size", "_image_size", "encoding", "sizes"):
            setattr(self, name, getattr(self, name)[rows])
        self.labels = {axis: labels[rows] for axis, labels in self.labels.items()}
        self._rows = rows

    def keep_remote(self, cache: str) -> None:
        """Keeps a local copy of what is read from an object store, see `remote_cache`; else changes nothing.

        Raises:
          UsageError: `cache` is no such value.
          DataError: the copy cannot be written.
        """
        if self.remote is None:
            remote_cache.parse(cache)
        elif self.remote.cache != cache:
            self.remote = RemoteShards(self._folder, self.shards, cache)

    def __len__(self) -> int:
        return len(self._offset)

    @property
    def root(self) -> str:
        """The folder of the shards, or its URL."""
        return self._folder.root

    def path(self, shard: int) -> str:
        """The path, or the URL, of a shard by its number."""
        return f"{self._folder.root}/{self.shards[shard].file}"

    def image(self, record: int) -> bytes:
        """The encoded image. Raises DataError when the shard shrank or its disk fails."""
        return self.images(np.array([record]))[0]

    def images(self, records: np.ndarray) -> list[bytes]:
        """The encoded images of records int64 [B], without NumPy's overhead for each. See `image`."""
        shards, starts, sizes = self.image_places(records)
        if self.remote is None:
            return list(map(self._read, shards.tolist(), starts.tolist(), sizes.tolist()))
        encoded = self.remote.read(shards, starts, sizes)
        return list(map(self._whole, encoded, shards.tolist(), starts.tolist(), sizes.tolist()))

    def pixels(self, record: int, encoded: bytes | None = None) -> np.ndarray:
        """One image at its stored size, uint8 [H, W, 3].

        Args:
          encoded: its encoded bytes; None reads them.

        Raises:
          DataError: it does not decode, its shard shrank, or its disk fails.
        """
        encoded = self.image(record) if encoded is None else encoded
        height, width = self.sizes[record].tolist()
        try:
            return stored_pixels(encoded, records.ENCODINGS[self.encoding[record]], height, width)
        except ValueError as error:
            raise DataError(
                f"{self.where(record)}: does not decode ({error}); run python -m tfrecords_tools.verify "
                f"--data_dir={self.data_dir} --decode"
            ) from error

    def key(self, record: int) -> bytes:
        """The key of one record: its path relative to the converted folder. Raises DataError."""
        shard, number, start, size = self.place(record)
        head, foot = records.LENGTH_BYTES, records.FOOTER_BYTES
        payload = self._read(shard, start + head, size - head - foot)
        try:
            return records.parse(payload)[1]
        except ValueError as error:
            raise DataError(
                f"{self.path(shard)}, record {number}: {error}; run python -m tfrecords_tools.verify "
                f"--data_dir={self.data_dir}"
            ) from error

    def place(self, record: int) -> tuple[int, int, int, int]:
        """(number of its shard, its number in the shard, offset and size in bytes) of a whole record."""
        row = int(record if self._rows is None else self._rows[record])
        shard = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return shard, row - int(self._firsts[shard]), int(self._offset[record]), int(self._size[record])

    def image_places(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(numbers of their shards, offsets and sizes in bytes) of encoded images, [B] each."""
        shards = (
            np.searchsorted(
                self._firsts, records if self._rows is None else self._rows[records], side="right"
            )
            - 1
        )
        return shards, self._image_offset[records], self._image_size[records]

    def will_read(self, records: np.ndarray) -> None:
        """Has the system read encoded images of local shards ahead, all at once; does not wait for them."""
        for shard, start, size in zip(*(c.tolist() for c in self.image_places(records)), strict=True):
            if shard < len(self._files):
                _will_read(self._files[shard], start, size)

    def will_read_all(self) -> None:
        """The same for all shards, from start to end. Waits while the disk's queue is full."""
        for file, shard in zip(self._files, self.shards, strict=False):
            for start in range(0, shard.bytes, _AHEAD_BYTES):
                _will_read(file, start, _AHEAD_BYTES)

    def where(self, record: int) -> str:
        """Names a record in an error message: shard, number in the shard, key."""
        shard, number, _, _ = self.place(record)
        try:
            key = records.key_shown(self.key(record))
        except DataError:
            key = "unreadable"
        return f"{self.path(shard)}, record {number} (key {key})"

    @functools.cached_property
    def one_size(self) -> tuple[int, int] | None:
        """(height, width) when all images have one size, else None."""
        if not len(self):
            return None
        height, width = self.sizes[0].tolist()
        return (height, width) if (self.sizes == self.sizes[0]).all() else None

    def _open(self, shard: int) -> int:
        try:
            return regular_files.open_descriptor(self.path(shard))
        except OSError as error:
            raise DataError(f"{self.path(shard)}: cannot be opened ({error.strerror})") from error

    def _read(self, shard: int, start: int, size: int) -> bytes:
        try:
            data = self._pread(shard, start, size)
        except OSError as error:
            raise DataError(
                f"{self.path(shard)}: unreadable at byte {start:,} ({error.strerror}); "
                "check the disk, or copy the folder again"
            ) from error
        return self._whole(data, shard, start, size)

    def _whole(self, data: bytes, shard: int, start: int, size: int) -> bytes:
        if len(data) < size:
            raise DataError(
                f"{self.path(shard)}: ends before byte {start + size:,}, so it was "
                "truncated since it was opened; copy the folder again, or convert again"
            )
        return data

    @contextlib.contextmanager
    def opened(self, shards: Sequence[int]) -> Iterator[list[int]]:
        """Opens local shards by number; gives their descriptors. Raises DataError."""
        more: list[int] = []
        try:
            for shard in shards:
                if shard >= len(self._files):
                    more.append(self._open(shard))
            rest = iter(more)
            yield [self._files[shard] if shard < len(self._files) else next(rest) for shard in shards]
        finally:
            _close(more)

    def _pread(self, shard: int, start: int, size: int) -> bytes:
        if shard < len(self._files):
            return regular_files.read_at(self._files[shard], size, start)
        if self.remote is not None:
            return self.remote.read(np.array([shard]), np.array([start]), np.array([size]))[0]
        file = self._open(shard)
        try:
            return regular_files.read_at(file, size, start)
        finally:
            os.close(file)


def _will_read(file: int, start: int, size: int) -> None:
    with contextlib.suppress(OSError):  # advice that a file system does not take
        os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED)


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
