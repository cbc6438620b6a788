"""The second pass: split and labels of each image, from its directories and metadata.csv.

Label maps are decided here: `authenticity` is real = 0, fake = 1; every other axis has its names sorted.
"""

import re
import shlex

import numpy as np

from tfrecords_tools import terminal
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.listing import similar_names
from tfrecords_tools.listing.choice import SORTED, Choice, matches_name
from tfrecords_tools.listing.layout import AUTHENTICITY, DEFAULT_SPLIT, SPLIT, TRUTH_WORDS, Layout
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.listing.walk import NOT_CHOSEN, Walk
from tfrecords_tools.sources.labelled import Labelled

TRUTH = ("real", "fake")  # label 0, label 1
NO_LABEL = -1  # in a column


class Table:
    """Columns of names by image, a column for the split and one per label axis."""

    def __init__(self, walk: Walk, layout: Layout, root: str, choice: Choice | None = None):
        self.walk, self.layout, self.root = walk, layout, root
        self.choice = Choice() if choice is None else choice
        self._old_names: set[str] = set()  # those that `choice.merge` may rename
        self._skipped: list[tuple[bytes, str]] = []
        self._left_out_names = set(map(terminal.one_line, walk.left_out_values))  # of --include and --exclude
        self.names: dict[str, dict[str, int]] = {}  # per column, name -> id, in the order seen
        self.columns: dict[str, np.ndarray] = {}  # per column, [images] int32 ids, -1 unknown
        self.outside = np.zeros(len(walk.rows), bool)
        self._left_out = self.outside  # of these, the ones that are not rejected
        values = [
            layout.match(folder) if own is None else own
            for folder, own in zip(walk.folders, walk.values, strict=True)
        ]
        folder = walk.rows["folder"]
        for column in (SPLIT, *layout.axes):
            ids = [-2 if value is None else self.number(column, value.get(column)) for value in values]
            self.columns[column] = np.array(ids, np.int32)[folder]
        self.outside = self.columns[SPLIT] == -2
        if layout.file_axes:
            self._read_file_names()
        if not layout.has_split:
            self.columns[SPLIT] = np.where(self.outside, -2, -1).astype(np.int32)
        if layout.axes:
            self._only_labelled_or_only_not()
        if self.outside.all():
            shown = records.key_shown(walk.key(0))
            raise DataError(f"{root}: no image fits --layout={layout.template}; the first one is {shown}")

    def number(self, column: str, name: str | None) -> int:
        """The id of a name in a column, a new one for a new name; -1 for none."""
        if name is None:
            return -1
        name = self.renamed(terminal.one_line(name))
        if column == AUTHENTICITY:
            name = TRUTH_WORDS.get(name.casefold(), name)
            if name not in TRUTH:
                raise DataError(
                    f"{self.root}: the layout {self.layout.template} makes {name!r} an authenticity, "
                    "which is only real or fake; rename the directory, or name that level with --layout"
                )
        names = self.names.setdefault(column, {})
        return names.setdefault(name, len(names))

    def renamed(self, name: str) -> str:
        """What --merge makes of the name of a class or a split."""
        self._old_names.add(name)
        return self.choice.merge.get(name, name)

    def leave_out(self, images: np.ndarray, reason: str) -> None:
        """Leaves out the images of a mask; they are listed as skipped, not as rejected."""
        self._skipped += [(self.walk.key(index), reason) for index in np.flatnonzero(images).tolist()]
        self.outside |= images
        self._left_out = self._left_out | images

    def label_names(self) -> set[str]:
        """The names of all labels, of any axis."""
        return {name for axis in set(self.names) & set(self.columns) - {SPLIT} for name in self.names[axis]}

    def choose_by_label(self) -> None:
        """Leaves out the images whose labels --exclude names, or --include does not name."""
        include = self.choice.include if self.walk.include_by_label else ()
        chosen = np.zeros(len(self.outside), bool) if include else ~self.outside
        for axis in set(self.names) & set(self.columns) - {SPLIT}:
            names = list(self.names[axis])
            for patterns, value in ((include, True), (self.choice.exclude, False)):
                matching = [number for number, name in enumerate(names) if matches_name(name, patterns)]
                if matching:
                    chosen[np.isin(self.columns[axis], matching)] = value
        self.leave_out(~chosen & ~self.outside, NOT_CHOSEN)
        if self.outside.all():
            raise DataError(
                f"{self.root}: --include={','.join(self.choice.include)} and --exclude="
                f"{','.join(self.choice.exclude)} leave no image; patterns match parts of paths and names of "
                "classes"
            )
        for axis in set(self.names) & set(self.columns) - {SPLIT}:  # names that are left
            self._forget_unused(axis)

    def _forget_unused(self, axis: str) -> None:
        used = np.unique(self.columns[axis][~self.outside])
        used = used[used >= 0]
        names = list(self.names[axis])
        lookup = np.full(len(names) + 1, -1, np.int32)
        lookup[used] = np.arange(len(used))
        self.columns[axis] = lookup[self.columns[axis]]
        self.names[axis] = {names[number]: index for index, number in enumerate(used.tolist())}
        self._left_out_names.update(set(names) - set(self.names[axis]))

    def _read_file_names(self) -> None:
        """Takes labels from the names of the files."""
        for index in np.flatnonzero(~self.outside).tolist():
            values = self.layout.match_file(records.key_text(self.walk.key(index).rpartition(b"/")[2]))
            if values is None:
                self.outside[index] = True
            else:
                for axis, name in values.items():
                    self.columns[axis][index] = self.number(axis, name)

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
                name = self.choice.merge.get(name, name)
                name = TRUTH_WORDS.get(name.casefold(), name) if axis == AUTHENTICITY else name
                if axis != SPLIT and name not in self.names.get(axis, {}):
                    directory = "/".join(folder)
                    without = shlex.quote(f"--exclude={directory}")
                    files = "1 other file," if count == 1 else f"{count:,} other files, such as"
                    content = f"has only {files} {records.key_shown(key)} ({reason})"
                    content = "is empty" if key.endswith(b"/") else content
                    raise DataError(
                        f"{self.root}: {axis} {name!r} has no images: the directory {directory} {content}; "
                        f"add images, remove the directory, or pass {without} or --allow_missing_classes"
                    )

    def finish(self, axes: dict[str, tuple[str, ...]] | None = None) -> Listing:
        """Final numbers of splits and labels, without what lies outside the layout."""
        walk = self.walk
        rejected = list(walk.rejected)
        self.choice.require_used(self._old_names)
        for index in np.flatnonzero(self.outside & ~self._left_out):
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
        notes = [note for axis in maps for note in similar_names.warnings(axis, maps[axis])]
        return Listing(
            root=self.root, source=walk.source, layout=self.layout, splits=splits, axes=maps,
            rows=walk.rows[keep], split=split, labels=labels, rejected=rejected,
            skipped=walk.skipped + self._skipped,
            keys=walk.keys, system=walk.system, notes=notes,
        )  # fmt: skip

    def _maps(self, keep: np.ndarray | slice) -> dict[str, tuple[str, ...]]:
        axes = [axis for axis in self.columns if axis != SPLIT and (self.columns[axis][keep] >= 0).any()]
        axes.sort(key=lambda axis: axis != AUTHENTICITY)
        if not axes and any(key.endswith(b".cls") for key, _ in self.walk.skipped):
            raise DataError(
                f"{self.root}: no directory gives a label, but there are .cls files as in WebDataset; for "
                f"its tar files pass --input=tar:{self.root}"
            )
        if not axes:
            raise DataError(
                f"{self.root}: no image has a label; put images into one folder per class "
                f"(train/cats, train/dogs, …), {self._where_labels_are()}"
            )
        return {axis: self._class_names(axis) for axis in axes}

    def _where_labels_are(self) -> str:
        """The flag that would find labels which are not those of directories."""
        tables = [key for key, _ in self.walk.skipped if key.lower().endswith((b".csv", b".tsv"))]
        if tables:
            shown = records.key_shown(min(tables, key=lambda key: (key.count(b"/"), key)))
            named = shlex.quote(f"--metadata={shown}")
            return f"or pass {named} if that file has the labels, with --label_columns=category=COLUMN"
        return (
            "add a metadata.csv with the columns image_path,class, or pass --layout='{category}_*.jpg' if "
            "the names of the files begin with the class"
        )

    def _class_names(self, axis: str) -> tuple[str, ...]:
        """The label names of an axis in label order: the source's own order where it has one."""
        source = self.walk.source
        if axis == AUTHENTICITY:
            return TRUTH
        names = self.choice.in_order(self.names[axis])
        if not isinstance(source, Labelled) or self.choice.order != SORTED:
            return names
        if all(name.isdecimal() for name in names) and axis not in source.class_names:
            return tuple(sorted(names, key=int))
        known = {}  # the new name of each old one
        for name in map(terminal.one_line, source.class_names.get(axis, ())):  # as `number` has them
            known[name] = self.choice.merge.get(name, name)
        left_out = self._left_out_names - set(names)
        chosen = (new for old, new in known.items() if new in names or not {old, new} & left_out)
        return tuple(dict.fromkeys([*chosen, *names]))

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
    new = {name: number for number, name in enumerate(names)}
    lookup = np.array([new[name] for name in numbers] + [-1], np.int32)
    return lookup[ids]  # id -1 picks the last entry: no label
