"""The features of a frozen extractor for each image, stored as float16 rows by record number.

    FOLDER/TASK-SPLIT-KEY/about.json      what the features were computed from
    FOLDER/TASK-SPLIT-KEY/view-00.f16     float16 [N, …], rows by record number; allocated in full at once
    FOLDER/TASK-SPLIT-KEY/view-00.sums    uint64 per 256 rows: 0 if missing, else 2**32 + their CRC-32C

KEY is a hash of the shards' own hashes, the decoding, the extractor with its weights, the augmentation and
the seed: if any of these changes, so do the files. A chunk's checksum is written once its rows are on disk,
so a killed process loses the chunk it was computing; every checksum is verified when the store is opened,
and a chunk that does not match is computed again. A row of NaN is a record that cannot be decoded.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil

import filelock
import google_crc32c
import numpy as np

from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError

CHUNK = 256  # rows
_FORMAT = 1
_PRESENT = 1 << 32  # so that the checksum of rows that are present is never 0
_LARGEST = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True)
class Source:
    """What features are computed from.

    Attributes:
      task, split: names, part of the folder's name.
      records: number of rows.
      shape: shape of one image's features.
      views: views of each image.
      about: everything that the values depend on, as JSON.
    """

    task: str
    split: str
    records: int
    shape: tuple[int, ...]
    views: int
    about: dict

    @property
    def key(self) -> str:
        """SHA-256 of all that the values depend on."""
        text = json.dumps([_FORMAT, self.records, self.shape, self.about], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def view_bytes(self) -> int:
        """Size of one view's file."""
        return self.records * math.prod(self.shape) * 2


class FeatureStore:
    """The features of one task's images of one split. One process at a time may have it open for writing.

    Attributes:
      source: what the features are computed from.
      path: the folder of the store.
      damaged: number of chunks whose checksum did not match when the store was opened.
    """

    def __init__(self, folder: str | os.PathLike, source: Source):
        """Opens or creates the store, and verifies its chunks.

        Raises:
          DataError: there is no space for it, or its folder cannot be written to.
        """
        self.source = source
        self.path = pathlib.Path(folder) / f"{source.task}-{source.split}-{source.key[:20]}"
        self.damaged = 0
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            self._allocate()
            self._write_about()
            self._rows = [self._map(view) for view in range(source.views)]
            self._sums = [self._checked_sums(view) for view in range(source.views)]
        except OSError as error:
            raise DataError(
                f"features {self.path}: {error.strerror}; give another --cache=features:FOLDER"
            ) from error

    def missing(self, view: int) -> np.ndarray:
        """int64 [M], the numbers of the chunks that are not stored yet."""
        return np.flatnonzero(self._sums[view] == 0)

    def write(self, view: int, chunk: int, features: np.ndarray) -> None:
        """Stores the rows of one chunk.

        Args:
          features: float [rows, …]; rows of NaN for records that cannot be decoded. Values beyond float16's
            range become its largest.
        """
        start = chunk * CHUNK
        rows = self._rows[view][start : start + CHUNK]
        rows[:] = np.clip(features[: len(rows)], -_LARGEST, _LARGEST)
        self._rows[view].flush()  # before the checksum that declares them present
        self._sums[view][chunk] = _PRESENT + google_crc32c.value(rows.tobytes())
        self._sums[view].flush()

    def release(self) -> None:
        """Lets other processes open the store; called once nothing is missing."""
        self._lock.release()

    def read(self, view: int, records: np.ndarray) -> np.ndarray:
        """float16 [B, …] of record numbers int64 [B]."""
        return np.take(self._rows[view], records, axis=0)

    def undecodable(self) -> np.ndarray:
        """int64 [M], the records that could not be decoded when the first view was computed."""
        first = self._rows[0].reshape(self.source.records, -1)[:, 0]
        return np.flatnonzero(np.isnan(first))

    def _allocate(self) -> None:
        for view in range(self.source.views):
            path = self.path / f"view-{view:02d}.f16"
            if path.exists() and path.stat().st_size == self.source.view_bytes:
                continue
            free = shutil.disk_usage(self.path).free
            if self.source.view_bytes > free:
                raise DataError(
                    f"features {self.path}: a view of {self.source.records:,} images takes "
                    f"{self.source.view_bytes / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; "
                    "give another --cache=features:FOLDER, or begin again in another --workdir with fewer "
                    "--views or --cache=none"
                )
            self._sums_path(view).unlink(missing_ok=True)
            with published(path, binary=True) as file:
                os.posix_fallocate(file.fileno(), 0, self.source.view_bytes)

    def _map(self, view: int) -> np.memmap:
        path = self.path / f"view-{view:02d}.f16"
        return np.memmap(path, np.float16, "r+", shape=(self.source.records, *self.source.shape))

    def _checked_sums(self, view: int) -> np.memmap:
        path, count = self._sums_path(view), -(-self.source.records // CHUNK)
        if not path.exists() or path.stat().st_size != count * 8:
            with published(path, binary=True) as file:
                file.write(bytes(count * 8))
        sums = np.memmap(path, np.uint64, "r+", shape=(count,))
        for chunk in np.flatnonzero(sums):
            rows = self._rows[view][chunk * CHUNK : (chunk + 1) * CHUNK]
            if int(sums[chunk]) != _PRESENT + google_crc32c.value(rows.tobytes()):
                sums[chunk] = 0
                self.damaged += 1
        return sums

    def _sums_path(self, view: int) -> pathlib.Path:
        return self.path / f"view-{view:02d}.sums"

    def _write_about(self) -> None:
        path = self.path / "about.json"
        if path.exists():
            return
        about = {"format": _FORMAT, "key": self.source.key, "records": self.source.records}
        about |= {"shape": self.source.shape, "dtype": "float16"} | self.source.about
        with published(path) as file:
            file.write(json.dumps(about, indent=1) + "\n")


def _locked(path: pathlib.Path) -> filelock.BaseFileLock:
    """The lock of a store, once no other process computes its features."""
    lock = filelock.FileLock(path / "lock", fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        print(f"another process computes the features of {path}; waiting for it", flush=True)
        lock.acquire()
    return lock
