"""A file that lists images by their paths -> the set of those paths.

It is a CSV file with a column of paths (`key`, `path`, `image_path`, `file`, `image` or `filename`), such as
deepduel.evaluate writes, or has one path on each line. Paths are relative to the folder that is converted.
"""

import csv
import io
import os

from tfrecords_tools import regular_files
from tfrecords_tools.errors import DataError
from tfrecords_tools.listing.label_file import PATH_COLUMNS

COLUMNS = ("key", *PATH_COLUMNS)


def read(file: str | os.PathLike) -> frozenset[str]:
    """The paths that a file lists, without "./" at their beginning.

    Raises:
      DataError: the file cannot be read.
    """
    try:
        with regular_files.open_text(file) as stream:
            text = stream.read().removeprefix("\ufeff")
        paths = [line.rstrip("\r") for line in text.split("\n")]
        header = [cell.strip() for cell in next(csv.reader(paths[:1]), [])]
        column = next((header.index(name) for name in COLUMNS if name in header), None)
        if column is not None:
            rows = csv.reader(io.StringIO(text, newline=""))
            paths = [row[column] for row in rows if len(row) > column][1:]
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(
            f"{file}: cannot be read ({reason}); it must list paths of images, one on each line or in the "
            f"column {COLUMNS[0]} or {COLUMNS[1]} of a CSV file"
        ) from error
    return frozenset(path.removeprefix("./") for path in paths if path)
