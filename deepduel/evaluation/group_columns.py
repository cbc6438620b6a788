"""Columns of a CSV file, such as the generator's name, by which to group evaluated images.

A file like metadata.csv -> {column: str [records of the split]}. Its rows are matched to the images by
their paths relative to the converted folder.
"""

import csv
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from deepduel.decoding.split import Split
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.listing import label_file

MOST_VALUES = 200  # a column with more different values holds numbers or names of single images, not groups
_KEYS = (*label_file.PATH_COLUMNS, "key")


def read(path: str | os.PathLike, names: Sequence[str], split: Split) -> dict[str, np.ndarray]:
    """Reads columns of a CSV file for each record of a split.

    Args:
      path: a file like metadata.csv, its columns separated by commas, semicolons, tabs or bars, with a column
        of paths relative to the converted folder (`image_path`, `path`, `file`, `image`, `filename` or
        `key`). Rows of other images are ignored.
      names: the columns to read.

    Returns:
      {column: str object [N]}, "" where an image has no row or an empty field.

    Raises:
      UsageError: the file lacks a column, or a column is a label axis or has too many values to group by.
      DataError: the file is unreadable or no table, has contradicting rows, or has a row for no image.
    """
    rows = _rows(path)
    header = [column.strip() for column in next(rows)[1]]
    key_column = _key_column(header, path)
    _require_columns(header, key_column, names, path, split)
    numbers = {_key(split, number): number for number in range(len(split))}
    columns = {name: np.full(len(split), "", object) for name in names}
    has_row = np.zeros(len(split), bool)
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}: row {line} has {len(row)} fields, but the header has {len(header)}")
        key = _encoded(row[key_column]).removeprefix(b"./")
        number = numbers.get(key, numbers.get(key.replace(b"\\", b"/")))  # Windows' paths
        if number is None:
            continue
        for name, values in columns.items():
            value = records.key_text(_encoded(row[header.index(name)]))
            if has_row[number] and values[number] != value:
                raise DataError(
                    f"{path}: row {line} gives {name} of {row[key_column]!r} as {value!r}, "
                    f"an earlier row as {values[number]!r}; keep one of them"
                )
            values[number] = value
        has_row[number] = True
    if not has_row.any():
        raise DataError(
            f"{path}: has no row for any of the {len(split):,} images of split {split.name!r}; its column "
            f"{header[key_column]!r} must hold paths such as {records.key_shown(_key(split, 0))}"
        )
    _require_few_values(columns)
    return columns


def _rows(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of the header, which may be empty, and of each row that is not."""
    try:
        file = pathlib.Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: SIM115, closed below
    except OSError as error:
        raise DataError(f"--metadata={path}: cannot be read ({error.strerror})") from error
    with file:
        number = 0  # of the latest line
        try:
            first = file.readline()
            reader = csv.reader(itertools.chain([first], file), delimiter=label_file.delimiter(first) or ",")
            header, number = next(reader, []), 1
            yield 1, header
            for row in reader:
                number = reader.line_num
                if row:
                    yield number, row
        except csv.Error as error:
            raise DataError(f"{path}: row {number + 1} is not valid CSV ({error}); correct it") from error


def _encoded(field: str) -> bytes:
    """A field's bytes as in the file, without surrounding spaces; keys are bytes and need not be UTF-8."""
    return field.strip().encode("utf-8", "surrogateescape")


def _key_column(header: list[str], path: str | os.PathLike) -> int:
    """Index of the column of paths."""
    for column in _KEYS:
        if column in header:
            return header.index(column)
    raise DataError(f"{path}: no column {' or '.join(_KEYS)}; its columns are {', '.join(header) or 'none'}")


def _require_columns(
    header: list[str], key_column: int, names: Sequence[str], path: str | os.PathLike, split: Split
) -> None:
    for name in names:
        if name in split.manifest.axes:
            raise UsageError(
                f"--group_by={name}: it is a label axis of {split.data_dir}, and figures by "
                "label axis are always reported; remove it"
            )
        if name not in header:
            others = [column for number, column in enumerate(header) if number != key_column]
            raise UsageError(f"--group_by={name}: {path} has no such column; it has {', '.join(others)}")


def _require_few_values(columns: dict[str, np.ndarray]) -> None:
    for name, values in columns.items():
        count = len(set(values.tolist()) - {""})
        if count > MOST_VALUES:
            raise UsageError(
                f"--group_by={name}: the column has {count:,} different values for these images, and at most "
                f"{MOST_VALUES} can be grouped by; choose a column of names, or round its numbers"
            )


def _key(split: Split, number: int) -> bytes:
    try:
        return split.key(number)
    except DataError:  # a damaged record; --on_error decides later whether it may be left out
        return b""
