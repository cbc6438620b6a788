"""Labels of CSV files -> columns of the table of a folder, beside those of its directories or instead."""

import numpy as np

from tfrecords_tools import terminal
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage
from tfrecords_tools.listing.label_file import LabelFile, LabelFileOptions, Row
from tfrecords_tools.listing.layout import AUTHENTICITY, SPLIT, TRUTH_WORDS
from tfrecords_tools.listing.table import NO_LABEL, Table
from tfrecords_tools.progress import counted

NO_ROW = "no row in the CSV file names it"


def apply(table: Table, files: list[LabelFile], options: LabelFileOptions, seed: int) -> list[str]:
    """Takes CSV files into the table of a folder.

    Args:
      table: what the directories say.
      files: the files; all rows together are one list.
      options: how to treat what is missing.
      seed: of the table's order hashes.

    Returns:
      Lines for people on what was passed over.

    Raises:
      DataError: a row names an image that does not exist or contradicts a directory, or the rows label only
        some images of a split.
    """
    merger = _Merger(table, options, seed)
    for file in files:
        merger.add(file)
    return merger.finish(", ".join(file.where for file in files))


class _Merger:
    """The rows of several files, one after another."""

    def __init__(self, table: Table, options: LabelFileOptions, seed: int):
        self._table, self._options, self._seed = table, options, seed
        self._from_folders = set(table.columns) if table.layout.has_split else set(table.columns) - {SPLIT}
        self._supplied: set[str] = set()
        self._order = np.argsort(table.walk.rows["order"], kind="stable")
        self._hashes = table.walk.rows["order"][self._order]
        self._has_row = np.zeros(len(table.walk.rows), bool)
        self._rows_without_image = 0

    def add(self, file: LabelFile) -> None:
        for axis in file.axes:
            if axis not in self._table.columns:
                self._table.columns[axis] = np.full(len(self._table.walk.rows), -1, np.int32)
        self._supplied |= file.axes - self._from_folders
        for row in file.rows():
            index = self._find(self._key(row.path, file.base))
            if index is None:
                if self._options.missing == "fail":
                    raise DataError(self._not_found(row, file.base))
                self._rows_without_image += 1
                continue
            if self._has_row[index]:
                raise DataError(f"{row.where} names {row.path!r} a second time; keep one of the rows")
            self._has_row[index] = True
            for axis, label in row.labels.items():
                if label:
                    self._take(axis, label, index, row)

    def finish(self, where: str) -> list[str]:
        images_without_row = 0
        if self._options.missing == "skip":
            without = ~self._has_row & ~self._table.outside
            images_without_row = int(without.sum())
            self._table.leave_out(without, NO_ROW)
        else:
            self._require_rows(where)
        if self._rows_without_image or images_without_row:
            return [
                f"{where}: passed over {counted(self._rows_without_image, 'row')} without an image and "
                f"{counted(images_without_row, 'image')} without a row"
            ]
        return []

    def _key(self, path: str, base: str) -> bytes:
        key = base + path.removeprefix("./") + self._options.path_suffix
        return key.encode("utf-8", "surrogateescape")

    def _find(self, key: bytes) -> int | None:
        for name in (key, key.replace(b"\\", b"/")) if b"\\" in key else (key,):
            place = int(np.searchsorted(self._hashes, np.uint64(records.order_hash(name, self._seed))))
            if place < len(self._order) and self._table.walk.key(self._order[place]) == name:
                return int(self._order[place])
        return None

    def _not_found(self, row: Row, base: str) -> str:
        """The message for a row without an image, with the flag that would find it."""
        remedy = "correct the row, or pass --missing=skip to pass over such rows, or --metadata= to read none"
        key = self._key(row.path, base)
        suffixes = (
            [""] if self._options.path_suffix else ["", *sorted(map(bytes.decode, storage.IMAGE_SUFFIXES))]
        )
        folders = {"/".join(folder) + "/" for folder in self._table.walk.folders if folder} | {""}
        for suffix in suffixes:
            if self._find(key + suffix.encode()) is not None:
                remedy = f"pass --path_suffix={suffix}"
                break
            for folder in sorted(folders)[:1_000]:
                if self._find(self._key(row.path, folder) + suffix.encode()) is not None:
                    also = f" and --path_suffix={suffix}" if suffix else ""
                    return self._no_image(row, f"pass --base_dir={folder.rstrip('/')}{also}")
        return self._no_image(row, remedy)

    def _no_image(self, row: Row, remedy: str) -> str:
        return f"{row.where} names {row.path!r}, but {self._table.root} has no such image; {remedy}"

    def _take(self, axis: str, label: str, index: int, row: Row) -> None:
        label = terminal.one_line(label)
        if axis == AUTHENTICITY:
            word = TRUTH_WORDS.get(label.casefold())
            if word is None:
                raise DataError(
                    f"{row.where}: {label!r} is not an authenticity label, which is 0 (real) or 1 (fake); a "
                    "column of other labels must be called class, or be named with "
                    "--label_columns=category=COLUMN"
                )
            label = word
        label = self._table.renamed(label)
        number = self._table.columns[axis][index]
        if axis not in self._from_folders or number == NO_LABEL:  # as in test/ beside train/cats
            self._supplied.add(axis)
            self._table.columns[axis][index] = self._table.number(axis, label)
            return
        if number >= 0 and self._table.names[axis].get(label) != number:
            raise DataError(
                f"{row.where} says {row.path!r} is {label!r} ({axis}), but its directory says "
                f"{list(self._table.names[axis])[number]!r}; correct the row, move the image, or pass "
                f"--label_columns={axis}=COLUMN to take labels from the file alone"
            )

    def _require_rows(self, where: str) -> None:
        """Where only CSV files give labels, every image of a split has a row, or none has."""
        table = self._table
        for axis in self._supplied - {SPLIT}:
            for split in np.unique(table.columns[SPLIT][~table.outside]):
                in_split = (table.columns[SPLIT] == split) & ~table.outside
                missing = in_split & ~self._has_row & (table.columns[axis] == NO_LABEL)
                if missing.any() and self._has_row[in_split].any():
                    key = records.key_shown(table.walk.key(int(np.flatnonzero(missing)[0])))
                    raise DataError(
                        f"{where}: {key} has no {axis}: there is no row for it; add one with an empty label, "
                        "or pass --missing=skip to leave such images out"
                    )
