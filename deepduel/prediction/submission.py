"""The file that predict writes: one row per image.

Columns, in this order:

    image        the image's name
    label        of a run that learnt authenticity: 0 real, 1 fake (ArtiFact's submission form)
    class        of a run that learnt category: the category's name (likewise)
    AXIS         of any other label axis, named after it: the label's name
    p_AXIS_NAME  with probabilities: of each label of each axis, 0..1

As JSON lines the same names are keys. The file appears under its name only once it is whole;
`STEM.rejected.csv` beside it (image,reason) lists what could not be read, and is absent when
everything could.
"""

import csv
import json
import os
import pathlib

import numpy as np

from tfrecords_tools.errors import DataError, UsageError

AUTHENTICITY, CATEGORY = "authenticity", "category"
FORMATS = ("csv", "jsonl")
_COLUMNS = {AUTHENTICITY: "label", CATEGORY: "class"}


class Columns:
    """How predictions become rows.

    Attributes:
      header: the names of the columns.
    """

    def __init__(self, classes: dict[str, tuple[str, ...]], *, probabilities: bool = False):
        """Args:
          classes: label names by axis.
          probabilities: add the columns p_AXIS_NAME.

        Raises:
          UsageError: two axes would share a column.
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
                "predict them one by one with --tasks"
            )

    def row(self, image: str, probabilities: dict[str, np.ndarray], decisions: dict[str, int]) -> list:
        """One image's values, in the header's order.

        Args:
          probabilities: {axis: float [classes]}.
          decisions: {axis: class}.
        """
        values: list = [image]
        for axis in self._axes:
            chosen = int(decisions[axis])
            values.append(chosen if axis == AUTHENTICITY else self._classes[axis][chosen])
        if self._probabilities:
            values += [round(float(value), 6) for axis in self._axes for value in probabilities[axis]]
        return values


class Writer:
    """Writes rows to a file that is published by `publish`. A context manager: without it nothing is left."""

    def __init__(self, output: str | os.PathLike, header: list[str], *, form: str):
        """Raises UsageError or DataError when the file cannot be written there."""
        self.path = pathlib.Path(output)
        self.rejected_path = self.path.with_name(f"{self.path.stem}.rejected.csv")
        if self.path.is_dir():
            raise UsageError(f"--output={output} is a folder; name a file in it")
        self._header, self._form = header, form
        self._partials = {
            path: path.with_name(f".{path.name}.{os.getpid()}.partial")
            for path in (self.path, self.rejected_path)
        }
        self._files = []
        self.rows = self.rejected = 0
        self.first_reason = ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for partial in self._partials.values():
                self._files.append(partial.open("w", encoding="utf-8", newline=""))
        except OSError as error:
            self._discard()
            raise DataError(f"--output={output}: cannot be written ({error.strerror})") from error
        self._rows, self._rejected = self._files
        if form == "csv":
            csv.writer(self._rows, lineterminator="\n").writerow(header)
        csv.writer(self._rejected, lineterminator="\n").writerow(["image", "reason"])

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._discard()

    def write(self, values: list) -> None:
        """Adds an image's row."""
        self.rows += 1
        if self._form == "csv":
            csv.writer(self._rows, lineterminator="\n").writerow(values)
        else:
            line = json.dumps(dict(zip(self._header, values, strict=True)), ensure_ascii=False)
            self._rows.write(line + "\n")

    def reject(self, image: str, reason: str) -> None:
        """Adds an image to the list of unreadable ones."""
        self.rejected += 1
        self.first_reason = self.first_reason or f"{image}: {reason}"
        csv.writer(self._rejected, lineterminator="\n").writerow([image, reason])

    def publish(self) -> None:
        """Puts both files under their names, the rows last: where they are, all of it is."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if self.rejected:
            self._partials[self.rejected_path].replace(self.rejected_path)
        else:
            self._partials[self.rejected_path].unlink()
            self.rejected_path.unlink(missing_ok=True)
        self._partials[self.path].replace(self.path)

    def _discard(self) -> None:
        for file in self._files:
            file.close()
        for partial in self._partials.values():
            partial.unlink(missing_ok=True)
