"""Reads a finished evaluation: RUN/evaluation/<split>/predictions.csv -> arrays by label axis."""

import contextlib
import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deepduel.decoding.split import Split
from tfrecords_tools import cli, regular_files, terminal
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import documents

_SUFFIX = "_predicted"


@dataclasses.dataclass(frozen=True)
class TaskPredictions:
    """A run's predictions on one label axis, for the images that have a label on it.

    Attributes:
      classes: label names, in the order of the probabilities.
      keys: the keys of the images [N].
      labels, predicted: int [N], indices into `classes`.
      probabilities: float [N, classes].
    """

    classes: tuple[str, ...]
    keys: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    def only(self, indices: Sequence[int]) -> "TaskPredictions":
        """The images at these indices, in this order."""
        return dataclasses.replace(
            self,
            keys=[self.keys[index] for index in indices],
            labels=self.labels[indices],
            predicted=self.predicted[indices],
            probabilities=self.probabilities[indices],
        )

    def renumbered(self, classes: tuple[str, ...]) -> "TaskPredictions":
        """The same predictions with the same classes in another order."""
        new = np.array([classes.index(name) for name in self.classes])
        order = [self.classes.index(name) for name in classes]
        return TaskPredictions(
            classes, self.keys, new[self.labels], new[self.predicted], self.probabilities[:, order]
        )


@dataclasses.dataclass(frozen=True)
class SavedEvaluation:
    """A finished evaluation of one run on one split.

    Attributes:
      workdir: folder of the run.
      split: name of the evaluation, the split's for the run's own data.
      data_split: name of the evaluated split, which may be a part such as "train[80%:]".
      about: where the figures come from, see `provenance.about`.
      tasks: predictions by label axis.
    """

    workdir: str
    split: str
    data_split: str
    about: dict
    tasks: dict[str, TaskPredictions]

    @property
    def model_sha256(self) -> dict[str, str]:
        """The hashes of the model files by axis; empty where they are not known."""
        return self.about.get("model_sha256", {})

    def open_split(self) -> Split | None:
        """The evaluated images; None where their shards are gone."""
        with contextlib.suppress(DataError, UsageError):
            return Split(self.about.get("data_dir", ""), self.data_split)
        return None


@dataclasses.dataclass(frozen=True)
class _Metrics:
    """metrics.json, as far as it is read here."""

    about: dict[str, Any]
    split: str = ""


def read(workdir: str | os.PathLike, split: str) -> SavedEvaluation:
    """Reads RUN/evaluation/<split>.

    Raises:
      DataError: the run was not evaluated on that split, or a file is damaged.
    """
    folder = pathlib.Path(workdir, "evaluation", split)
    path = folder / "predictions.csv"
    try:
        with regular_files.open_text(path) as file:
            tasks = _tasks(csv.reader(file))
        path = folder / "metrics.json"
        metrics = documents.read_file(path, _Metrics)
    except FileNotFoundError:
        words = [f"--workdir={workdir}", "--data_dir=SHARDS", f"--split={split}"]
        raise DataError(
            f"{workdir} has no {path.relative_to(workdir)}; run "
            f"{cli.command_line('deepduel.evaluate', words)} first"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: unreadable ({error}); evaluate the run again") from error
    if not tasks:
        raise DataError(f"{path}: holds no predictions; evaluate the run again")
    return SavedEvaluation(str(workdir), split, metrics.split or split, metrics.about, tasks)


class _TaskColumns:
    """The columns of one task in predictions.csv, and the rows read from them so far.

    They are adjacent: AXIS, AXIS_predicted, then p_AXIS_LABEL for each label.
    """

    def __init__(self, header: list[str], start: int, end: int):
        self.axis = header[start]
        self._start, self._end = start, end
        self._classes = [name.removeprefix(f"p_{self.axis}_") for name in header[start + 2 : end]]
        self._numbers = {name: number for number, name in enumerate(self._classes)}
        self._keys: list[str] = []
        self._labels: list[int] = []
        self._predicted: list[int] = []
        self._probabilities: list[list[float]] = []

    def add(self, row: list[str]) -> None:
        """Reads one image's row; an image without a label on this axis is left out."""
        label, predicted, *probabilities = row[self._start : self._end]
        if label:
            self._keys.append(row[0].removeprefix("./"))
            self._labels.append(self._number(label))
            self._predicted.append(self._number(predicted))
            self._probabilities.append([float(value) for value in probabilities])

    def _number(self, cell: str) -> int:
        number = self._numbers.get(terminal.plain_word(cell))
        if number is None:
            raise ValueError(f"{cell!r} is none of the classes in its header")
        return number

    def predictions(self) -> TaskPredictions:
        return TaskPredictions(
            tuple(self._classes),
            self._keys,
            np.array(self._labels, int),
            np.array(self._predicted, int),
            np.array(self._probabilities, float).reshape(-1, len(self._classes)),
        )


def _tasks(rows: Iterator[list[str]]) -> dict[str, TaskPredictions]:
    """The rows of predictions.csv, its header first -> {axis: predictions}."""
    header = next(rows, [])
    starts = [
        position
        for position, (name, second, third) in enumerate(zip(header, header[1:], header[2:], strict=False))
        if second == f"{name}{_SUFFIX}" and third.startswith(f"p_{name}_")  # no classes X and X_predicted
    ]
    tasks = [
        _TaskColumns(header, start, end)
        for start, end in zip(starts, [*starts[1:], len(header)], strict=True)
    ]
    for row in rows:
        for task in tasks:
            task.add(row)
    return {task.axis: task.predictions() for task in tasks}
