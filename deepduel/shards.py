"""One split of a data folder, opened for reading by record number.

The tables beside the shards say where each image lies, so taking record 700,000 costs what
record 0 costs: one read at a known place, no parsing, no checksum.

Read with pread and not through a memory map: a file that shrinks, a disk or a network file system
that fails ends a process that reads it through a map by SIGBUS, at any moment and without a word.
"""

import os
import pathlib
import weakref

import numpy as np

from tfrecords_tools import manifest as manifests
from tfrecords_tools import records
from tfrecords_tools.cli import DataError, UsageError


class Split:
    """Records 0 … len - 1 of one split, in the order in which they lie in the shards.

    Attributes:
      data_dir, name: where it was opened.
      manifest: of the whole data folder.
      labels: int32 per record by axis, {axis: [N]}; -1 for no label.
      sizes: int32 [N, 2], height and width of each image in pixels.
      bad: {record number: reason} of the records found so far that do not decode.
    """

    def __init__(self, data_dir: str | os.PathLike, name: str):
        """Raises UsageError when there is no such split, DataError when a file is not whole."""
        self.data_dir = pathlib.Path(data_dir)
        self.name = name
        self.manifest = manifests.load(data_dir)
        if name not in self.manifest.splits:
            raise UsageError(
                f"{data_dir} has no split {name!r}; it has {', '.join(sorted(self.manifest.splits))}"
            )
        self.shards = self.manifest.splits[name].shards
        tables = [self._table(shard) for shard in self.shards]
        table = np.concatenate(tables) if tables else np.empty(0, self._dtype())
        self._files: list[int] = []
        weakref.finalize(self, _close, self._files)
        for shard in self.shards:
            self._files.append(self._open(shard))
        self.bad: dict[int, str] = {}
        self._shard = np.repeat(np.arange(len(tables), dtype=np.int32), [len(part) for part in tables])
        self._spans = np.stack(
            [table["offset"], table["size"], table["image_offset"], table["image_size"]], axis=1
        )
        self.encoding = table["encoding"]
        self.sizes = np.stack([table["height"], table["width"]], axis=1)
        self.labels = {
            axis: np.ascontiguousarray(table["labels"][:, column])
            for column, axis in enumerate(self.manifest.axes)
        }

    def __len__(self) -> int:
        return len(self._shard)

    def image(self, record: int) -> bytes:
        """The encoded image. Raises DataError when the shard shrank or its disk fails."""
        _, _, start, size = self._spans[record].tolist()
        return self._read(int(self._shard[record]), start, size)

    def images(self, records: np.ndarray) -> list[bytes]:
        """`image` of many records at once, without NumPy's overhead for each."""
        spans = self._spans[records, 2:].tolist()
        shards = self._shard[records].tolist()
        return [self._read(shard, start, size) for shard, (start, size) in zip(shards, spans, strict=True)]

    def key(self, record: int) -> bytes:
        """The key of one record: its path relative to the folder that was converted."""
        start, size, _, _ = self._spans[record].tolist()
        head, foot = records.LENGTH_BYTES, records.FOOTER_BYTES
        payload = self._read(int(self._shard[record]), start + head, size - head - foot)
        return records.parse(payload)[1]

    def where(self, record: int) -> str:
        """A record for an error message: shard, number in the shard, key."""
        shard = int(self._shard[record])
        number = record - int(np.searchsorted(self._shard, shard))
        try:
            key = records.key_text(self.key(record))
        except (ValueError, DataError):
            key = "unreadable"
        return f"{self.data_dir / self.shards[shard].file}, record {number} (key {key})"

    @property
    def one_size(self) -> tuple[int, int] | None:
        """(height, width) when all images have one size, else None."""
        if not len(self):
            return None
        first = self.sizes[0]
        return tuple(first.tolist()) if (self.sizes == first).all() else None

    def _dtype(self) -> np.dtype:
        return records.table_dtype(len(self.manifest.axes))

    def _table(self, shard: manifests.Shard) -> np.ndarray:
        path = self.data_dir / f"{shard.file}.npy"
        try:
            table = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: unreadable ({error}); run tfrecords_tools.verify, then convert again"
            ) from error
        if table.dtype != self._dtype() or len(table) != shard.records:
            raise DataError(
                f"{path}: does not belong to its shard ({len(table)} records, the manifest says "
                f"{shard.records}); run tfrecords_tools.verify, then convert again"
            )
        if len(table) and int((table["offset"] + table["size"]).max()) > shard.bytes:
            raise DataError(f"{path}: points past the end of its shard; convert again")
        return table

    def _open(self, shard: manifests.Shard) -> int:
        try:
            return os.open(self.data_dir / shard.file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{self.data_dir / shard.file}: cannot be opened ({error.strerror})") from error

    def _path(self, shard: int) -> pathlib.Path:
        return self.data_dir / self.shards[shard].file

    def _read(self, shard: int, start: int, size: int) -> bytes:
        try:
            data = os.pread(self._files[shard], size, start)
        except OSError as error:
            raise DataError(
                f"{self._path(shard)}: unreadable at byte {start:,} ({error.strerror}); "
                "look after the disk, or copy the folder again"
            ) from error
        if len(data) < size:
            raise DataError(
                f"{self._path(shard)}: ends before byte {start + size:,}, so it was cut "
                "short since it was opened; copy the folder again, or convert again"
            )
        return data


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)
