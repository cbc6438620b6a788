"""An image folder -> a listing: every image's key, size, split and labels.

A listing is compact (keys in one temporary file, numbers in arrays, about 60 bytes of memory an
image), so that a million paths are no matter. Label maps are decided here: `authenticity` is
real = 0, fake = 1; every other axis has its names sorted.
"""

import collections
import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from tfrecords_tools import layout as layouts
from tfrecords_tools import metadata as metadata_file
from tfrecords_tools import records, storage
from tfrecords_tools.cli import DataError
from tfrecords_tools.layout import AUTHENTICITY, DEFAULT_SPLIT, SPLIT, TRUTH_WORDS, Layout

METADATA = "metadata.csv"
TRUTH = ("real", "fake")  # label 0, label 1
_ROW = np.dtype([("start", "<i8"), ("length", "<i4"), ("folder", "<i4"), ("size", "<i8"), ("order", "<u8")])
_CHUNK = 65_536


@dataclasses.dataclass(frozen=True)
class Example:
    """One image: its key, bytes on disk, split, and labels by axis (-1: none)."""

    key: bytes
    size: int
    split: str
    labels: dict[str, int]


@dataclasses.dataclass
class Listing:
    """All images of a folder.

    Attributes:
      root: the folder, as given.
      layout: which part of a path says what.
      splits: names, sorted.
      axes: label names per axis, in label order.
      rows: [images]: where each key lies, its bytes on disk (`size`), its place in the order of
        writing (`order`: a seeded 64-bit hash of the key).
      split: [images] int16, index into `splits`.
      labels: [images, axes] int32, -1 for none.
      keys: all keys, one after another, bytes.
      rejected: (key, reason) of images that cannot enter, as far as listing shows it.
      skipped: (key, reason) of files that are no images by their names.
    """

    root: str
    layout: Layout
    splits: tuple[str, ...]
    axes: dict[str, tuple[str, ...]]
    rows: np.ndarray
    split: np.ndarray
    labels: np.ndarray
    rejected: list[tuple[bytes, str]]
    skipped: list[tuple[bytes, str]]
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, index: int) -> bytes:
        row = self.rows[index]
        return self.keys[row["start"] : row["start"] + row["length"]].tobytes()

    def example(self, index: int) -> Example:
        labels = dict(zip(self.axes, self.labels[index].tolist(), strict=True))
        return Example(self.key(index), int(self.rows["size"][index]), self.splits[self.split[index]], labels)

    def examples(self) -> Iterator[Example]:
        return (self.example(index) for index in range(len(self)))

    def only(self, keep: np.ndarray) -> "Listing":
        """The images of a mask."""
        return dataclasses.replace(
            self, rows=self.rows[keep], split=self.split[keep], labels=self.labels[keep]
        )

    def labelled(self, split: int) -> bool:
        """Whether the images of a split have labels."""
        return bool((self.labels[self.split == split] >= 0).any())

    def fingerprint(self) -> str:
        """SHA-256 over keys (by their order hashes), sizes, splits and labels; hex."""
        digest = hashlib.sha256(repr((self.splits, self.axes)).encode("utf-8", "backslashreplace"))
        order = np.argsort(self.rows["order"], kind="stable")
        for start in range(0, len(order), _CHUNK):
            chosen = order[start : start + _CHUNK]
            for values in (self.rows["order"], self.rows["size"], self.split, self.labels):
                digest.update(np.ascontiguousarray(values[chosen]))
        return digest.hexdigest()


def scan(
    folder: str,
    *,
    layout: str | None = None,
    metadata: str | None = None,
    seed: int = 0,
    allow_missing_classes: bool = False,
    axes: dict[str, tuple[str, ...]] | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Listing:
    """Lists an image folder.

    Args:
      folder: its path.
      layout: a template such as "{split}/{authenticity}/{category}"; None detects it.
      metadata: name of a CSV file in the folder; None reads metadata.csv when there is one,
        "" reads none.
      seed: of the order of writing.
      allow_missing_classes: let a labelled split lack images of some class.
      axes: label maps to use, of a folder that this is to be added to; None makes them.
      on_progress: called with the number of files found so far, now and then.

    Raises:
      DataError: no such folder, no images, no layout, a contradiction, a missing class.
    """
    store = storage.open_folder(folder)
    if not store.exists():
        raise DataError(f"{folder}: there is no such folder; --input_dir names a folder of images")
    name = METADATA if metadata is None else metadata
    walk = Walk(store, name, seed, on_progress)
    if not len(walk.rows):
        raise DataError(_nothing(folder, walk))
    chosen = Layout(layout) if layout is not None else layouts.detect(walk.counts())
    table = Table(walk, chosen, folder)
    if name and store.size(name) is not None:
        metadata_file.read(table, store.read(name), f"{folder}/{name}", seed)
    elif metadata:
        raise DataError(f"{folder}/{name}: there is no such file; --metadata names a CSV file in --input_dir")
    listing = table.finish(axes)
    if not allow_missing_classes:
        require_all_classes(listing)
    return listing


class Walk:
    """The first pass: keys and numbers of all files, before anything is known of labels."""

    def __init__(self, store, metadata: str, seed: int, on_progress: Callable[[int], None]):
        self.folders: list[layouts.Folder] = []
        self.rejected: list[tuple[bytes, str]] = []
        self.skipped: list[tuple[bytes, str]] = []
        # Temporary files, mapped: pages that the system can drop when memory is short.
        keys, rows = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        start, last, chunk = 0, None, []
        for count, found in enumerate(store.walk()):
            if count % 5_000 == 4_999:
                on_progress(count + 1)
            reason = found.problem or _no_image(found.key)
            if reason:
                if found.problem:
                    self.rejected.append((found.key, reason))
                elif found.key not in (metadata.encode(), METADATA.encode()):
                    self.skipped.append((found.key, reason))
                continue
            above = found.key.rpartition(b"/")[0]
            if above != last:
                last = above
                self.folders.append(tuple(records.key_text(part) for part in above.split(b"/") if part))
            keys.write(found.key)
            chunk.append(
                (
                    start,
                    len(found.key),
                    len(self.folders) - 1,
                    found.size,
                    records.order_hash(found.key, seed),
                )
            )
            start += len(found.key)
            if len(chunk) == _CHUNK:
                rows.write(np.array(chunk, _ROW).tobytes())
                chunk = []
        rows.write(np.array(chunk, _ROW).tobytes())
        self.keys, self.rows = _mapped(keys, np.uint8), _mapped(rows, _ROW)

    def counts(self) -> dict[layouts.Folder, int]:
        """Images by directory."""
        counts = collections.Counter()
        for folder, count in zip(
            self.folders, np.bincount(self.rows["folder"], minlength=len(self.folders)), strict=True
        ):
            counts[folder] += int(count)
        return counts

    def key(self, index: int) -> bytes:
        row = self.rows[index]
        return self.keys[row["start"] : row["start"] + row["length"]].tobytes()


class Table:
    """The second pass: what the directories and the metadata say of each image, by name."""

    def __init__(self, walk: Walk, layout: Layout, root: str):
        self.walk, self.layout, self.root = walk, layout, root
        self.names: dict[str, dict[str, int]] = {}  # per column, name -> id, in the order seen
        self.columns: dict[str, np.ndarray] = {}  # per column, [images] int32 ids, -1 unknown
        self.outside = np.zeros(len(walk.rows), bool)
        values = [layout.match(folder) for folder in walk.folders]
        folder = walk.rows["folder"]
        for column in (SPLIT, *layout.axes):
            ids = [-2 if value is None else self.number(column, value.get(column)) for value in values]
            self.columns[column] = np.array(ids, np.int32)[folder]
        self.outside = self.columns[SPLIT] == -2
        if not layout.has_split:
            self.columns[SPLIT] = np.where(self.outside, -2, -1).astype(np.int32)
        if layout.axes:
            self._only_labelled_or_only_not()
        if self.outside.all():
            shown = records.key_text(walk.key(0))
            raise DataError(f"{root}: no image fits --layout={layout.template}; the first one is {shown}")

    def number(self, column: str, name: str | None) -> int:
        """The id of a name in a column, a new one for a new name; -1 for none."""
        if name is None:
            return -1
        if column == AUTHENTICITY:
            name = TRUTH_WORDS.get(name.casefold(), name)
            if name not in TRUTH:
                raise DataError(
                    f"{self.root}: the layout {self.layout.template} makes {name!r} an authenticity, "
                    "which is only real or fake; rename the directory, or call that level otherwise"
                )
        names = self.names.setdefault(column, {})
        return names.setdefault(name, len(names))

    def _only_labelled_or_only_not(self) -> None:
        """Images right in a split's directory: a split without labels, or strays among labelled ones."""
        split, axis = self.columns[SPLIT], self.columns[self.layout.axes[0]]
        for index in range(len(self.names.get(SPLIT, ()))):
            here = split == index
            if (here & (axis >= 0)).any():
                self.outside |= here & (axis < 0)

    def finish(self, given: dict[str, tuple[str, ...]] | None = None) -> Listing:
        """Final numbers of splits and labels, without what lies outside the layout."""
        walk = self.walk
        rejected = list(walk.rejected)
        for index in np.flatnonzero(self.outside):
            rejected.append((walk.key(index), f"outside the layout {self.layout.template}"))
        keep = slice(None) if not self.outside.any() else ~self.outside
        maps = self._maps(keep) if given is None else given
        for axis in set(self.names) - {SPLIT}:
            unknown = sorted(set(self.names[axis]) - set(maps.get(axis, ())))
            if unknown and given is not None:
                raise DataError(
                    f"{self.root}: {axis} {unknown[0]!r} is not among the labels of the folder to append to, "
                    f"{', '.join(maps.get(axis, ())) or 'which has no such axis'}; convert into a new folder"
                )
        none = np.full(len(walk.rows[keep]), -1, np.int32)
        labels = np.stack(
            [
                _renumber(self.columns[axis][keep], self.names.get(axis, {}), maps[axis])
                if axis in self.columns
                else none
                for axis in maps
            ],
            axis=1,
        )
        split, splits = self._splits(keep)
        return Listing(
            root=self.root, layout=self.layout, splits=splits, axes=maps, rows=walk.rows[keep],
            split=split, labels=labels, rejected=rejected, skipped=walk.skipped, keys=walk.keys,
        )  # fmt: skip

    def _maps(self, keep) -> dict[str, tuple[str, ...]]:
        axes = [axis for axis in self.columns if axis != SPLIT and (self.columns[axis][keep] >= 0).any()]
        axes.sort(key=lambda axis: axis != AUTHENTICITY)
        if not axes:
            raise DataError(
                f"{self.root}: no image has a label; put images into one folder per class "
                "(train/cats, train/dogs, …), or add a metadata.csv with the columns image_path,class"
            )
        return {axis: TRUTH if axis == AUTHENTICITY else tuple(sorted(self.names[axis])) for axis in axes}

    def _splits(self, keep) -> tuple[np.ndarray, tuple[str, ...]]:
        ids = self.columns[SPLIT][keep]
        names = list(self.names.get(SPLIT, []))
        if (ids < 0).any():
            if DEFAULT_SPLIT not in names:
                names.append(DEFAULT_SPLIT)
            ids = np.where(ids < 0, names.index(DEFAULT_SPLIT), ids)
        clean = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in names]
        for name, first, again in zip(clean, names, map(clean.index, clean), strict=True):
            if names[again] != first:
                raise DataError(
                    f"{self.root}: the splits {names[again]!r} and {first!r} would both be stored "
                    f"as {name!r}; rename one of the directories"
                )
        used = np.unique(ids)
        order = sorted(used, key=lambda index: clean[index])
        lookup = np.full(len(names), -1, np.int16)
        lookup[order] = np.arange(len(order))
        return lookup[ids], tuple(clean[index] for index in order)


def _renumber(ids: np.ndarray, seen: dict[str, int], names: tuple[str, ...]) -> np.ndarray:
    lookup = np.array([names.index(name) for name in seen] + [-1], np.int32)
    return lookup[ids]  # id -1 picks the last entry: no label


def _mapped(file, dtype) -> np.ndarray:
    size = file.tell()
    file.flush()
    return np.asarray(np.memmap(file, dtype, mode="r")) if size else np.empty(0, dtype)  # a plain view


def _no_image(key: bytes) -> str:
    """Why a file is no image by its name; "" when it may be one (files without any ending may)."""
    name = key.rpartition(b"/")[2]
    ending = storage.suffix(name)
    if name.startswith((b".", b"~")) or name in (b"Thumbs.db", b"desktop.ini"):
        return "not an image by its name"
    if ending and ending not in storage.IMAGE_SUFFIXES:
        return f"not an image by its name ({records.key_text(ending)})"
    return ""


def _nothing(folder: str, walk: Walk) -> str:
    others = walk.rejected + walk.skipped
    if not others:
        return f"{folder}: the folder is empty; --input_dir names a folder of images"
    shown = f"{records.key_text(others[0][0])} ({others[0][1]})"
    return f"{folder}: no images in it, only {len(others)} other files, such as {shown}"


def require_all_classes(listing: Listing) -> None:
    """Raises DataError when a split with labels has no image of some class."""
    for number, split in enumerate(listing.splits):
        if not listing.labelled(number):
            continue
        labels = listing.labels[listing.split == number]
        for position, (axis, names) in enumerate(listing.axes.items()):
            counts = np.bincount(labels[:, position][labels[:, position] >= 0], minlength=len(names))
            if counts.any() and not counts.all():
                name = names[int(np.flatnonzero(counts == 0)[0])]
                raise DataError(
                    f"{listing.root}: split {split!r} has no image of {axis} {name!r}; add some, "
                    "or pass --allow_missing_classes if that is meant"
                )
