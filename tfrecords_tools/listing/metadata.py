"""metadata.csv: checked against the directories, and the source of labels that they do not give.

A row names a file (`image_path`, `path`, `file`, `image` or `filename`) and has `label` (authenticity:
0 real, 1 fake), `class` (category), or columns named after axes; `split` too. Other columns are left.
"""

import csv
import io
from typing import Any

import numpy as np

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.listing.layout import AUTHENTICITY, CATEGORY, SPLIT, TRUTH_WORDS
from tfrecords_tools.listing.table import Table

PATH_COLUMNS = ("image_path", "path", "file", "image", "filename")
_AXIS_COLUMNS = {"label": AUTHENTICITY, "class": CATEGORY}


def read(table: Table, data: bytes, where: str, seed: int) -> None:
    """Takes a CSV file into the table of a folder.

    Args:
      table: what the directories say.
      data: the file's bytes.
      where: its name in messages.
      seed: of the table's order hashes.

    Raises:
      DataError: it names an image that is not there, or contradicts a directory, or labels only some.
    """
    _Reader(table, where, seed).read(data)


class _Reader:
    def __init__(self, table: Table, where: str, seed: int):
        self.table, self.where, self.seed = table, where, seed

    def read(self, data: bytes) -> None:
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape", newline="")
        reader = csv.reader(text)
        try:
            self._read(reader)
        except csv.Error as error:
            line = f"{self.where}: row {reader.line_num}"
            raise DataError(f"{line} is no row of a CSV file ({error}); correct it") from error

    def _read(self, reader: Any) -> None:
        header = [column.strip() for column in next(reader, [])]
        path = next((header.index(column) for column in PATH_COLUMNS if column in header), None)
        where = self.where
        if path is None:
            raise DataError(f"{where}: no column {' or '.join(PATH_COLUMNS)}; its columns are {header}")
        from_folders = (
            set(self.table.columns) if self.table.layout.has_split else set(self.table.columns) - {SPLIT}
        )
        wanted = self._wanted(header)
        order = np.argsort(self.table.walk.rows["order"], kind="stable")
        hashes = self.table.walk.rows["order"][order]
        has_row = np.zeros(len(self.table.walk.rows), bool)
        for row in reader:
            if not row:
                continue
            line = f"{where}: row {reader.line_num}"
            if len(row) != len(header):
                raise DataError(f"{line} has {len(row)} fields, but the header has {len(header)}")
            index = self._find(row[path], order, hashes)
            if index is None:
                raise DataError(
                    f"{line} names {row[path]!r}, but {self.table.root} has no such image; "
                    "correct the row, or pass --metadata= to leave the file unread"
                )
            if has_row[index]:
                raise DataError(f"{line} names {row[path]!r} a second time; keep one of the rows")
            has_row[index] = True
            for column, position in wanted.items():
                self._take(column, row[position].strip(), index, column in from_folders, line, row[path])
        self._require_rows(has_row, set(wanted) - from_folders, where)

    def _wanted(self, header: list[str]) -> dict[str, int]:
        """Axis (or split) -> position of its column."""
        axes = {SPLIT, AUTHENTICITY, CATEGORY, *self.table.layout.axes}
        wanted = {}
        for position, column in enumerate(header):
            axis = column if column in axes else _AXIS_COLUMNS.get(column)
            if axis is not None and axis not in wanted:
                wanted[axis] = position
                if axis not in self.table.columns:
                    self.table.columns[axis] = np.full(len(self.table.walk.rows), -1, np.int32)
        return wanted

    def _find(self, path: str, order: np.ndarray, hashes: np.ndarray) -> int | None:
        key = path.strip().removeprefix("./").encode("utf-8", "surrogateescape")
        place = int(np.searchsorted(hashes, np.uint64(records.order_hash(key, self.seed))))
        if place == len(order) or self.table.walk.key(order[place]) != key:
            return None
        return int(order[place])

    def _take(self, column: str, value: str, index: int, from_folders: bool, line: str, path: str) -> None:
        if value == "":
            return
        if column == AUTHENTICITY:
            word = TRUTH_WORDS.get(value.casefold())
            if word is None:
                raise DataError(f"{line}: {value!r} is no authenticity label, which is 0 (real) or 1 (fake); "
                                "a column of other labels must be called class")  # fmt: skip
            value = word
        if not from_folders:
            self.table.columns[column][index] = self.table.number(column, value)
            return
        label = self.table.columns[column][index]
        if label >= 0 and self.table.names[column].get(value) != label:
            raise DataError(
                f"{line} says {path!r} is {value!r} ({column}), but its directory says "
                f"{list(self.table.names[column])[label]!r}; correct the row or move the image"
            )

    def _require_rows(self, has_row: np.ndarray, supplied: set[str], where: str) -> None:
        """Where only the CSV file gives labels, every image of a split has them or none has."""
        for column in supplied - {SPLIT}:
            for split in np.unique(self.table.columns[SPLIT][~self.table.outside]):
                in_split = (self.table.columns[SPLIT] == split) & ~self.table.outside
                missing = in_split & (self.table.columns[column] < 0)
                if missing.any() and not missing[in_split].all():
                    index = int(np.flatnonzero(missing)[0])
                    why = "leaves it empty" if has_row[index] else "has no row for it"
                    key = records.key_text(self.table.walk.key(index))
                    raise DataError(
                        f"{where}: {key} has no {column}: the file {why}; label all images of a split or none"
                    )
