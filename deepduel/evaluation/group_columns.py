"""Columns of a CSV file beside the images, such as the generator's name, to group evaluated images by."""

import csv
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from deepduel.decoding.split import Split
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.listing.metadata import PATH_COLUMNS

MOST_VALUES = 200  # of a column; a column with more is no group, but a number or a name of its own each
_KEYS = (*PATH_COLUMNS, "key")


def read(path: str | os.PathLike, names: Sequence[str], split: Split) -> dict[str, np.ndarray]:
    """What a CSV file says of each record of a split.

    Args:
      path: a file like metadata.csv: a column of paths relative to the converted folder (`image_path`,
        `path`, `file`, `image`, `filename` or `key`), and others. Rows of other images are passed over.
      names: the columns to read.

    Returns:
      {column: str object [N]}, "" where an image has no row or an empty field.

    Raises:
      UsageError: the file lacks a column, or one is a label axis or has too many values to group by.
      DataError: the file is unreadable or no table, says two things of an image, or knows none of them.
    """
    numbers = {_key(split, number): number for number in range(len(split))}
    found = {name: np.full(len(split), "", object) for name in names}
    seen = np.zeros(len(split), bool)
    try:
        file = pathlib.Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: SIM115
    except OSError as error:
        raise DataError(f"--metadata={path}: cannot be read ({error.strerror})") from error
    with file:
        reader = csv.reader(file)
        header = [column.strip() for column in next(reader, [])]
        keys = _position(header, names, path, split)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}: row {reader.line_num} has {len(row)} fields, but the header has {len(header)}"
                )
            key = row[keys].strip().removeprefix("./").encode("utf-8", "surrogateescape")
            number = numbers.get(key)
            if number is None:
                continue
            for name, values in found.items():
                value = records.key_text(row[header.index(name)].strip().encode("utf-8", "surrogateescape"))
                if seen[number] and values[number] != value:
                    raise DataError(
                        f"{path}: row {reader.line_num} says that {name} of {row[keys]!r} is {value!r}, "
                        f"an earlier one {values[number]!r}; keep one of them"
                    )
                values[number] = value
            seen[number] = True
    if not seen.any():
        raise DataError(
            f"{path}: has no row for any of the {len(split):,} images of split {split.name!r}; its column "
            f"{header[keys]!r} must hold paths such as {records.key_text(_key(split, 0))}"
        )
    for name, values in found.items():
        count = len(set(values.tolist()) - {""})
        if count > MOST_VALUES:
            raise UsageError(
                f"--group_by={name}: the column has {count:,} different values among these images, and "
                f"{MOST_VALUES} at most make groups; choose a column of names, or round its numbers"
            )
    return found


def _position(header: list[str], names: Sequence[str], path: str | os.PathLike, split: Split) -> int:
    """Where the column of paths is; checks the others."""
    keys = next((header.index(column) for column in _KEYS if column in header), None)
    if keys is None:
        raise DataError(
            f"{path}: no column {' or '.join(_KEYS)}; its columns are {', '.join(header) or 'none'}"
        )
    for name in names:
        if name in split.manifest.axes:
            raise UsageError(
                f"--group_by={name}: it is a label axis of {split.data_dir}, so the figures have it anyway"
            )
        if name not in header:
            others = [column for number, column in enumerate(header) if number != keys]
            raise UsageError(f"--group_by={name}: {path} has no such column; it has {', '.join(others)}")
    return keys


def _key(split: Split, number: int) -> bytes:
    try:
        return split.key(number)
    except DataError:  # a damaged record; whether it may be left out is decided where it is decoded
        return b""
