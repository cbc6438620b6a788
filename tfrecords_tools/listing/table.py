"""The second pass: split and labels of each image, from its directories and metadata.csv.

Label maps are decided here: `authenticity` is real = 0, fake = 1; every other axis has its names sorted.
"""

import re

import numpy as np

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.listing.layout import AUTHENTICITY, DEFAULT_SPLIT, SPLIT, TRUTH_WORDS, Layout
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.listing.walk import Walk
from tfrecords_tools.sources.labelled import Labelled

TRUTH = ("real", "fake")  # label 0, label 1


class Table:
    """Columns of names by image, a column for the split and one per label axis."""

    def __init__(self, walk: Walk, layout: Layout, root: str):
        self.walk, self.layout, self.root = walk, layout, root
        self.names: dict[str, dict[str, int]] = {}  # per column, name -> id, in the order seen
        self.columns: dict[str, np.ndarray] = {}  # per column, [images] int32 ids, -1 unknown
        self.outside = np.zeros(len(walk.rows), bool)
        values = [
            layout.match(folder) if own is None else own
            for folder, own in zip(walk.folders, walk.values, strict=True)
        ]
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
        """Decides whether images directly in a split's directory are unlabelled or outside the layout."""
        split, axis = self.columns[SPLIT], self.columns[self.layout.axes[0]]
        for index in range(len(self.names.get(SPLIT, ()))):
            in_split = split == index
            if (in_split & (axis >= 0)).any():
                self.outside |= in_split & (axis < 0)

    def require_images_of_each_class(self) -> None:
        """Raises DataError when a class has a directory but not one image."""
        for folder, (key, reason, count) in self.walk.without_images.items():
            for axis, name in (self.layout.match(folder) or {}).items():
                name = TRUTH_WORDS.get(name.casefold(), name) if axis == AUTHENTICITY else name
                if axis != SPLIT and name not in self.names.get(axis, {}):
                    directory = "/".join(folder)
                    raise DataError(
                        f"{self.root}: {axis} {name!r} has no images: the directory {directory} has only "
                        f"{count:,} other files, such as {records.key_text(key)} ({reason}); add images, "
                        f"remove the directory, or pass --exclude={directory} or --allow_missing_classes"
                    )

    def finish(self, axes: dict[str, tuple[str, ...]] | None = None) -> Listing:
        """Final numbers of splits and labels, without what lies outside the layout."""
        walk = self.walk
        rejected = list(walk.rejected)
        for index in np.flatnonzero(self.outside):
            rejected.append((walk.key(int(index)), f"outside the layout {self.layout.template}"))
        keep = slice(None) if not self.outside.any() else ~self.outside
        maps = self._maps(keep) if axes is None else axes
        for axis in set(self.names) - {SPLIT}:
            unknown = sorted(set(self.names[axis]) - set(maps.get(axis, ())))
            if unknown and axes is not None:
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
            root=self.root, source=walk.source, layout=self.layout, splits=splits, axes=maps,
            rows=walk.rows[keep], split=split, labels=labels, rejected=rejected, skipped=walk.skipped,
            keys=walk.keys, system=walk.system,
        )  # fmt: skip

    def _maps(self, keep: np.ndarray | slice) -> dict[str, tuple[str, ...]]:
        axes = [axis for axis in self.columns if axis != SPLIT and (self.columns[axis][keep] >= 0).any()]
        axes.sort(key=lambda axis: axis != AUTHENTICITY)
        if not axes:
            raise DataError(
                f"{self.root}: no image has a label; put images into one folder per class "
                "(train/cats, train/dogs, …), or add a metadata.csv with the columns image_path,class"
            )
        return {axis: self._class_names(axis) for axis in axes}

    def _class_names(self, axis: str) -> tuple[str, ...]:
        """The label names of an axis in label order: the source's own order where it has one."""
        source = self.walk.source
        names = tuple(sorted(self.names[axis]))
        if axis == AUTHENTICITY:
            return TRUTH
        if not isinstance(source, Labelled):
            return names
        if all(name.isdecimal() for name in names) and axis not in source.class_names:
            return tuple(sorted(names, key=int))
        known = source.class_names.get(axis, ())
        return known + tuple(name for name in names if name not in set(known))

    def _splits(self, keep: np.ndarray | slice) -> tuple[np.ndarray, tuple[str, ...]]:
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


def _renumber(ids: np.ndarray, numbers: dict[str, int], names: tuple[str, ...]) -> np.ndarray:
    lookup = np.array([names.index(name) for name in numbers] + [-1], np.int32)
    return lookup[ids]  # id -1 picks the last entry: no label
