"""The first pass over a folder: keys and numbers of all files, before anything is known of labels."""

import collections
import os
import tempfile
from collections.abc import Callable, Hashable, Mapping
from typing import IO

import numpy as np

from tfrecords_tools.format import records
from tfrecords_tools.format.folder import Folder, FolderEntry, Source
from tfrecords_tools.listing import candidates
from tfrecords_tools.listing import label_file as label_files
from tfrecords_tools.listing import layout as layouts
from tfrecords_tools.listing.choice import Choice

NOT_CHOSEN = "left out by --include or --exclude"
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
      values: what the source itself says of the images of a directory; None where the directory says it.
      rows: [images]: where each key lies in `keys`, its directory, its bytes on disk, its order hash.
      keys: all keys, one after another, bytes.
      rejected: (key, reason) of images that cannot be read, as far as listing shows it.
      skipped: (key, reason) of files that are not images, and of directories that are passed over.
      system: keys of the directories that are passed over.
      tables: keys of the files called metadata.csv.
      without_images: directories with other files: the first of these with its reason, and their number.
      left_out_values: what the source itself says of images that are left out by their paths.
    """

    def __init__(
        self,
        store: Source,
        label_file: str | None,
        seed: int,
        choice: Choice,
        on_progress: Callable[[int], None],
    ):
        self.folders: list[layouts.Folder] = []
        self.rejected: list[tuple[bytes, str]] = []
        self.skipped: list[tuple[bytes, str]] = []
        self.system: list[bytes] = []
        self.tables: list[bytes] = []
        self.without_images: dict[layouts.Folder, tuple[bytes, str, int]] = {}
        self.left_out_values: set[str] = set()
        # Temporary files, mapped: pages that the system can drop when memory is short.
        keys, rows = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115, open as long as the walk
        self.source = store
        self.values: list[Mapping[str, str] | None] = []
        self._numbers: dict[Hashable, int] = {}  # of the directories
        start, chunk = 0, []
        included: list[bool] = []
        for count, (entry, kind, reason) in enumerate(candidates.walk(store)):
            if count % 5_000 == 4_999:
                on_progress(count + 1)
            if kind is not candidates.Kind.IMAGE:
                if not label_file or entry.key != os.fsencode(label_file):
                    self._leave_out(entry, kind, reason, choice)
                continue
            if choice.excludes(entry.key):
                self.skipped.append((entry.key, NOT_CHOSEN))
                self.left_out_values.update((entry.values or {}).values())
                continue
            included.append(choice.includes(entry.key))
            keys.write(entry.key)
            chunk.append(
                (
                    start,
                    len(entry.key),
                    self._folder_number(entry),
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
        self.include_by_label = False
        if choice.include and len(self.rows):
            self._include(np.array(included))
        if not isinstance(store, Folder):
            self._reject_repeated()

    def _include(self, included: np.ndarray) -> None:
        """Leaves out the images whose paths --include does not match, if it matches any."""
        self.include_by_label = not included.any()
        if not self.include_by_label:
            self.skipped += [(self.key(index), NOT_CHOSEN) for index in np.flatnonzero(~included).tolist()]
            self.rows = self.rows[included]
            used = np.unique(self.rows["folder"])
            kept = set(used.tolist())
            left_out = (values for number, values in enumerate(self.values) if values and number not in kept)
            self.left_out_values.update(name for values in left_out for name in values.values())
            self.rows["folder"] = np.searchsorted(used, self.rows["folder"])
            self.folders = [self.folders[number] for number in used.tolist()]
            self.values = [self.values[number] for number in used.tolist()]

    def _folder_number(self, entry: FolderEntry) -> int:
        """The place in `folders` and `values` of an image's directory, or of what its source says of it."""
        above = entry.key.rpartition(b"/")[0]
        identity = above if entry.values is None else tuple(entry.values.items())
        number = self._numbers.setdefault(identity, len(self.folders))
        if number == len(self.folders):
            self.folders.append(_parts(above) if entry.values is None else tuple(entry.values.values()))
            self.values.append(entry.values)
        return number

    def _reject_repeated(self) -> None:
        """Leaves the first image of each key: an archive may hold several of one name."""
        _, first = np.unique(self.rows["order"], return_index=True)
        repeated = np.setdiff1d(np.arange(len(self.rows)), first)
        reason = "another image of this key comes before it"
        self.rejected += [(self.key(index), reason) for index in repeated.tolist()]
        self.rows = np.delete(self.rows, repeated)

    def _leave_out(self, entry: FolderEntry, kind: candidates.Kind, reason: str, choice: Choice) -> None:
        key = entry.key
        if not choice.excludes(key) and key.rpartition(b"/")[2] == label_files.FILE_NAME.encode():
            self.tables.append(key)
            return
        if choice.excludes(key) or not choice.includes(key):
            self.skipped.append((key, NOT_CHOSEN))
            return
        if kind is candidates.Kind.SYSTEM:
            self.system.append(key)
            self.skipped.append((key, reason))
            return
        (self.rejected if kind is candidates.Kind.REJECTED else self.skipped).append((key, reason))
        if entry.values is not None:  # its key is no place in a directory
            return
        if kind is candidates.Kind.REJECTED or not key.rpartition(b"/")[2].startswith(b"."):
            folder = _parts(key.rpartition(b"/")[0])
            first, why, count = self.without_images.get(folder, (key, reason, 0))
            self.without_images[folder] = first, why, count + 1

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


def _mapped(file: IO[bytes], dtype: np.dtype | type) -> np.ndarray:
    size = file.tell()
    file.flush()
    return np.asarray(np.memmap(file, dtype, mode="r")) if size else np.empty(0, dtype)  # a plain view


def _parts(folder: bytes) -> layouts.Folder:
    return tuple(records.key_text(part) for part in folder.split(b"/") if part)
