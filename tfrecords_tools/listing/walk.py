"""The first pass over a folder: keys and numbers of all files, before anything is known of labels."""

import collections
import tempfile
from collections.abc import Callable
from typing import IO

import numpy as np
import numpy.typing as npt

from tfrecords_tools.format import records, storage
from tfrecords_tools.format.folder import Source
from tfrecords_tools.listing import layout as layouts

METADATA = "metadata.csv"
_ROW = np.dtype(
    [
        ("start", "<i8"),
        ("length", "<i4"),
        ("folder", "<i4"),
        ("size", "<i8"),
        ("order", "<u8"),
        ("place", "<i8"),
    ]
)
_CHUNK = 65_536


class Walk:
    """What lies in a folder.

    Attributes:
      source: what was walked.
      folders: directories with images, as their parts.
      rows: [images]: where each key lies in `keys`, its directory, its bytes on disk, its order hash.
      keys: all keys, one after another, bytes.
      rejected: (key, reason) of images that cannot enter, as far as listing shows it.
      skipped: (key, reason) of files that are no images by their names.
    """

    def __init__(self, store: Source, metadata: str, seed: int, on_progress: Callable[[int], None]):
        self.folders: list[layouts.Folder] = []
        self.rejected: list[tuple[bytes, str]] = []
        self.skipped: list[tuple[bytes, str]] = []
        # Temporary files, mapped: pages that the system can drop when memory is short.
        keys, rows = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self.source = store
        start, last, chunk = 0, None, []
        for count, entry in enumerate(store.walk()):
            if count % 5_000 == 4_999:
                on_progress(count + 1)
            reason = entry.problem or no_image(entry.key)
            if reason:
                if entry.problem:
                    self.rejected.append((entry.key, reason))
                elif entry.key not in (metadata.encode(), METADATA.encode()):
                    self.skipped.append((entry.key, reason))
                continue
            above = entry.key.rpartition(b"/")[0]
            if above != last:
                last = above
                self.folders.append(tuple(records.key_text(part) for part in above.split(b"/") if part))
            keys.write(entry.key)
            chunk.append(
                (
                    start,
                    len(entry.key),
                    len(self.folders) - 1,
                    entry.size,
                    records.order_hash(entry.key, seed),
                    entry.place,
                )
            )
            start += len(entry.key)
            if len(chunk) == _CHUNK:
                rows.write(np.array(chunk, _ROW).tobytes())
                chunk = []
        rows.write(np.array(chunk, _ROW).tobytes())
        self.keys, self.rows = _mapped(keys, np.uint8), _mapped(rows, _ROW)

    def counts(self) -> dict[layouts.Folder, int]:
        """Images by directory."""
        counts: collections.Counter[layouts.Folder] = collections.Counter()
        for folder, count in zip(
            self.folders, np.bincount(self.rows["folder"], minlength=len(self.folders)), strict=True
        ):
            counts[folder] += int(count)
        return counts

    def key(self, index: int) -> bytes:
        row = self.rows[index]
        return self.keys[row["start"] : row["start"] + row["length"]].tobytes()


def _mapped(file: IO[bytes], dtype: npt.DTypeLike) -> np.ndarray:
    size = file.tell()
    file.flush()
    return np.asarray(np.memmap(file, dtype, mode="r")) if size else np.empty(0, dtype)  # a plain view


def no_image(key: bytes) -> str:
    """Why a file is no image by its name; "" when it may be one (files without any ending may)."""
    name = key.rpartition(b"/")[2]
    ending = storage.suffix(name)
    if name.startswith((b".", b"~")) or name in (b"Thumbs.db", b"desktop.ini"):
        return "not an image by its name"
    if ending and ending not in storage.IMAGE_SUFFIXES:
        return f"not an image by its name ({records.key_text(ending)})"
    return ""
