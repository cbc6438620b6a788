"""Probabilities -> the file of predictions, with one row per image and these columns in this order:

    image        name of the image
    label        0 real, 1 fake; for runs with the axis authenticity (as in ArtiFact's submission format)
    class        name of the category; for runs with the axis category (likewise)
    AXIS         name of the label; for each other axis, named after it
    p_AXIS_NAME  probability of each label of each axis, 0..1; with `probabilities`

In JSON lines the same names are keys. The file appears under its name when it is complete. A second file
in the same folder, STEM.rejected.csv (image,reason), lists the files that could not be read; it is absent
if all could be.
"""

import contextlib
import csv
import json
import os
import pathlib
import sys
from typing import IO, Any

import numpy as np

from tfrecords_tools import terminal
from tfrecords_tools.atomic import is_special, published
from tfrecords_tools.errors import DataError, UsageError

AUTHENTICITY, CATEGORY = "authenticity", "category"
FORMATS = ("csv", "jsonl")
_COLUMNS = {AUTHENTICITY: "label", CATEGORY: "class"}


class Columns:
    """Turns predictions into rows.

    Attributes:
      header: names of the columns.
    """

    def __init__(self, classes: dict[str, tuple[str, ...]], *, probabilities: bool = False):
        """Lays out the columns.

        Args:
          classes: {axis: label names}.
          probabilities: whether to add the columns p_AXIS_NAME.

        Raises:
          UsageError: two columns would have the same name.
        """
        self._classes = classes
        self._axes = sorted(
            classes, key=lambda axis: list(_COLUMNS).index(axis) if axis in _COLUMNS else len(_COLUMNS)
        )
        self._probabilities = probabilities
        self.header = ["image", *(_COLUMNS.get(axis, axis) for axis in self._axes)]
        if probabilities:
            self.header += [f"p_{axis}_{name}" for axis in self._axes for name in classes[axis]]
        if len(set(self.header)) < len(self.header):
            raise UsageError(
                f"the tasks {', '.join(self._axes)} would share a column ({','.join(self.header)}); "
                "predict them separately with --tasks"
            )

    def row(self, image: str, probabilities: dict[str, np.ndarray], decisions: dict[str, int]) -> list:
        """The values of one image in the order of the header.

        Args:
          image: its name.
          probabilities: {axis: float [classes]}.
          decisions: {axis: index of the predicted class}.
        """
        values: list = [image]
        for axis in self._axes:
            chosen = int(decisions[axis])
            values.append(chosen if axis == AUTHENTICITY else self._classes[axis][chosen])
        if self._probabilities:
            values += [round(float(value), 6) for axis in self._axes for value in probabilities[axis]]
        return values


class Writer:
    """A context manager that writes rows to hidden files; without `publish` they are removed at its end.

    Attributes:
      path: the file of predictions.
      rejected_path: the file of unreadable images; None where `path` is a device or a pipe, beside which no
        file is written: then they are printed to stderr.
      rows, rejected: number of lines written to each so far.
      first_reason: name and reason of the first unreadable image; "" if there is none.
    """

    def __init__(self, output: str | os.PathLike, header: list[str], *, form: str):
        """Opens the files.

        Args:
          form: "csv" or "jsonl".

        Raises:
          UsageError: `output` is a folder.
          DataError: the file cannot be written.
        """
        self.path = pathlib.Path(output)
        beside = self.path.with_name(f"{self.path.stem}.rejected.csv")
        self.rejected_path = None if is_special(self.path) else beside
        if self.path.is_dir():
            raise UsageError(f"--output={output} is a folder; set it to a file in this folder")
        self._header, self._form = header, form
        self._files = contextlib.ExitStack()
        self._rejected: IO[str] | None = None
        self.rows = self.rejected = 0
        self.first_reason = ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rows = self._files.enter_context(published(self.path, durable=True))
        except OSError as error:
            raise DataError(f"--output={output}: cannot be written ({error.strerror})") from error
        if form == "csv":
            csv.writer(self._rows, lineterminator="\n").writerow(header)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: Any) -> None:
        if kind is None:  # what was not published until here is not meant to be
            kind, exception = _NotPublished, (_NotPublished(), None)
        self._files.__exit__(kind, *exception)

    def write(self, values: list) -> None:
        """Adds the row of an image, see `Columns.row`."""
        self.rows += 1
        if self._form == "csv":
            csv.writer(self._rows, lineterminator="\n").writerow(_cells(values))
        else:
            line = json.dumps(dict(zip(self._header, values, strict=True)), ensure_ascii=False)
            self._rows.write(line + "\n")

    def reject(self, image: str, reason: str) -> None:
        """Adds an image to the list of unreadable ones."""
        self.rejected += 1
        self.first_reason = self.first_reason or f"{terminal.escaped(image)}: {reason}"
        if self.rejected_path is None:
            print(f"left out: {terminal.escaped(image)}: {reason}", file=sys.stderr)
            return
        if self._rejected is None:
            self._rejected = self._files.enter_context(published(self.rejected_path, durable=True))
            csv.writer(self._rejected, lineterminator="\n").writerow(["image", "reason"])
        csv.writer(self._rejected, lineterminator="\n").writerow([terminal.path_cell(image), reason])

    def publish(self) -> None:
        """Renames both files to their names, the predictions last: when they exist, both are complete."""
        if not self.rejected and self.rejected_path is not None:
            self.rejected_path.unlink(missing_ok=True)
        self._files.close()


def _cells(values: list) -> list:
    """The values of a row as cells that a spreadsheet does not compute."""
    image, *others = values
    words = [terminal.word_cell(value) if isinstance(value, str) else value for value in others]
    return [terminal.path_cell(image), *words]


class _NotPublished(Exception):
    """Ends the files' contexts without publishing them."""
