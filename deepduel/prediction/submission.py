"""Probabilities -> the file of predictions, with one row per image and these columns in this order:

    image            name of the image
    label            0 real, 1 fake; for runs with the axis authenticity (as in ArtiFact's submission format)
    class            name of the category; for runs with the axis category (likewise)
    AXIS             name of the label; for each other axis, named after it
    confidence_AXIS  probability of the predicted label, 0..1; in JSON lines. `confidence` with one axis
    p_AXIS_NAME      probability of each label of each axis, 0..1; with `probabilities`

`columns` chooses among all of these, and gives them other names.

In JSON lines the same names are keys. The file appears under its name when it is complete. A second file
in the same folder, STEM.rejected.csv (image,reason), lists the files that could not be read; it is absent
if all could be.
"""

import contextlib
import csv
import difflib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tfrecords_tools import terminal
from tfrecords_tools.atomic import is_special, published
from tfrecords_tools.errors import DataError, UsageError

if TYPE_CHECKING:  # it loads TensorFlow
    from deepduel.prediction.image_predictions import ImagePrediction

AUTHENTICITY, CATEGORY = "authenticity", "category"
FORMATS = ("csv", "jsonl")
_LISTED = 20  # names of columns in an error
_COLUMNS = {AUTHENTICITY: "label", CATEGORY: "class"}


class Columns:
    """Turns predictions into rows.

    Attributes:
      header: names of the columns.
    """

    def __init__(
        self,
        classes: dict[str, tuple[str, ...]],
        *,
        columns: Sequence[str] | None = None,
        confidence: bool = False,
        probabilities: bool = False,
    ):
        """Lays out the columns.

        Args:
          classes: {axis: label names}.
          columns: the columns to write, COLUMN or NAME=COLUMN for one of another name; None for image and
            labels, with what the following two add.
          confidence: whether to add the confidence columns.
          probabilities: whether to add the columns p_AXIS_NAME.

        Raises:
          UsageError: there is no such column, or two would have the same name.
        """
        axes = sorted(
            classes, key=lambda axis: list(_COLUMNS).index(axis) if axis in _COLUMNS else len(_COLUMNS)
        )
        groups = [
            [("image", lambda prediction: prediction.image)],
            [(_COLUMNS.get(axis, axis), _label(axis, classes[axis])) for axis in axes],
            [(_confidence_column(axis, axes), _confidence(axis)) for axis in axes],
            [
                (f"p_{axis}_{name}", _probability(axis, index))
                for axis in axes
                for index, name in enumerate(classes[axis])
            ],
        ]
        chosen = [
            column
            for group, wanted in zip(groups, (True, True, confidence, probabilities), strict=True)
            for column in group
            if wanted
        ]
        if columns is not None:
            chosen = _chosen(columns, dict(column for group in groups for column in group))
        self.header = [name for name, _ in chosen]
        self._values = [value for _, value in chosen]
        if len(set(self.header)) < len(self.header):
            remedy = "predict them separately with --tasks" if columns is None else "give each another name"
            raise UsageError(
                f"the tasks {', '.join(axes)} would share a column ({','.join(self.header)}); {remedy}"
            )

    def row(self, prediction: "ImagePrediction") -> list:
        """The values of one image in the order of the header."""
        return [value(prediction) for value in self._values]


Value: TypeAlias = "Callable[[ImagePrediction], Any]"


def _label(axis: str, names: tuple[str, ...]) -> Value:
    if axis == AUTHENTICITY:
        return lambda prediction: prediction.decisions[axis]
    return lambda prediction: names[prediction.decisions[axis]]


def _confidence_column(axis: str, axes: Sequence[str]) -> str:
    return "confidence" if len(axes) == 1 else f"confidence_{axis}"


def _confidence(axis: str) -> Value:
    return lambda prediction: _rounded(prediction.probabilities[axis][prediction.decisions[axis]])


def _probability(axis: str, index: int) -> Value:
    return lambda prediction: _rounded(prediction.probabilities[axis][index])


def _rounded(probability: np.floating) -> float:
    return round(float(probability), 6)


def _chosen(columns: Sequence[str], known: dict[str, Value]) -> list[tuple[str, Value]]:
    """[(name, value)] of the columns that a user chose. Raises UsageError."""
    chosen = []
    for column in columns:
        name, _, source = column.rpartition("=") if column not in known else ("", "", column)
        if source not in known:
            raise UsageError(
                f"--columns: there is no column {source!r}{_known(source, list(known))}; NAME=COLUMN gives a "
                "column another name"
            )
        chosen.append((name or source, known[source]))
    if not chosen:
        raise UsageError(f"--columns names no column{_known('', list(known))}")
    return chosen


def _known(column: str, names: list[str]) -> str:
    """What there is, the most similar ones first where there are many."""
    if len(names) > _LISTED:
        similar = difflib.get_close_matches(column, names, n=_LISTED, cutoff=0)
        return f"; among {len(names):,} there are {', '.join(similar)}"
    return f"; there are {', '.join(names)}"


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
