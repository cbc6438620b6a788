"""All images of a folder: every image's key, size, split and labels.

A listing is compact (keys in one temporary file, numbers in arrays, about 60 bytes of memory an
image), so that a million paths are no matter.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import Source
from tfrecords_tools.listing import similar_names
from tfrecords_tools.listing.layout import Layout

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
      source: where the images are read from.
      layout: which part of a path says what.
      splits: names, sorted.
      axes: label names per axis, in label order.
      rows: [images]: where each key lies, its bytes on disk (`size`), its place in the order of
        writing (`order`: a seeded 64-bit hash of the key), and where the source finds it (`place`).
      split: [images] int16, index into `splits`.
      labels: [images, axes] int32, -1 for none.
      keys: all keys, one after another, bytes.
      rejected: (key, reason) of images that cannot enter, as far as listing shows it.
      skipped: (key, reason) of files that are not images, or are left out for another reason.
      system: hidden and system directories, which are passed over.
      notes: lines for people on how the folder was understood.
    """

    root: str
    source: Source
    layout: Layout
    splits: tuple[str, ...]
    axes: dict[str, tuple[str, ...]]
    rows: np.ndarray
    split: np.ndarray
    labels: np.ndarray
    rejected: list[tuple[bytes, str]]
    skipped: list[tuple[bytes, str]]
    keys: np.ndarray
    system: list[bytes] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

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
                digest.update(np.ascontiguousarray(values[chosen]).data)
        return digest.hexdigest()


def require_all_splits(listing: Listing) -> None:
    """Raises DataError when a split has no image."""
    counts = np.bincount(listing.split, minlength=len(listing.splits))
    for split, count in zip(listing.splits, counts.tolist(), strict=True):
        if not count:
            raise DataError(
                f"{listing.root}: split {split!r} gets none of the {len(listing):,} images; add images, "
                "raise its share in --split, or leave it out"
            )


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
                similar = similar_names.remedy(name, names)
                raise DataError(
                    f"{listing.root}: split {split!r} has no image of {axis} {name!r}; "
                    f"{f'{similar}, or' if similar else 'add some, or'} pass --allow_missing_classes if that "
                    "is meant"
                )
