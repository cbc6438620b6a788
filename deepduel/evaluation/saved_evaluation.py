"""What an evaluation left in its run, read again: predictions.csv, and where it came from."""

import csv
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from tfrecords_tools.errors import DataError

_SUFFIX = "_predicted"


@dataclasses.dataclass(frozen=True)
class TaskPredictions:
    """A run's answers on one label axis, over the images that have a label.

    Attributes:
      classes: label names, in the order of the probabilities.
      keys: of the images [N].
      labels, predicted: int [N], numbers of classes.
      probabilities: float [N, classes].
    """

    classes: tuple[str, ...]
    keys: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    def only(self, places: Sequence[int]) -> "TaskPredictions":
        """Those images, in that order."""
        return dataclasses.replace(
            self,
            keys=[self.keys[place] for place in places],
            labels=self.labels[places],
            predicted=self.predicted[places],
            probabilities=self.probabilities[places],
        )

    def renumbered(self, classes: tuple[str, ...]) -> "TaskPredictions":
        """With the same classes in another order."""
        to = np.array([classes.index(name) for name in self.classes])
        order = [self.classes.index(name) for name in classes]
        return TaskPredictions(
            classes, self.keys, to[self.labels], to[self.predicted], self.probabilities[:, order]
        )


@dataclasses.dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation of a run.

    Attributes:
      workdir, split: whose.
      about: see `provenance.about`.
      tasks: {axis: answers}.
    """

    workdir: str
    split: str
    about: dict
    tasks: dict[str, TaskPredictions]


def read(workdir: str | os.PathLike, split: str) -> SavedEvaluation:
    """Reads RUN/evaluation/<split>.

    Raises:
      DataError: the run was not evaluated on that split, or a file is damaged.
    """
    folder = pathlib.Path(workdir, "evaluation", split)
    path = folder / "predictions.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            tasks = _tasks(csv.reader(file))
        path = folder / "metrics.json"
        about = json.loads(path.read_text("utf-8"))["about"]
    except FileNotFoundError:
        raise DataError(
            f"--compare: {workdir} has no {path.relative_to(workdir)}; "
            f"run python -m deepduel.evaluate --workdir={workdir} --data_dir=SHARDS --split={split} first"
        ) from None
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise DataError(f"{path}: unreadable ({error}); evaluate the run again") from error
    if not tasks:
        raise DataError(f"{path}: holds no predictions; evaluate the run again")
    return SavedEvaluation(str(workdir), split, about, tasks)


def _tasks(rows) -> dict[str, TaskPredictions]:
    header = next(rows, [])
    starts = [
        place
        for place, (name, following) in enumerate(zip(header, header[1:], strict=False))
        if following == f"{name}{_SUFFIX}"
    ]
    parts: dict = {header[start]: ([], [], [], []) for start in starts}
    spans = dict(zip(starts, [*starts[1:], len(header)], strict=True))
    names = {
        start: [name.removeprefix(f"p_{header[start]}_") for name in header[start + 2 : end]]
        for start, end in spans.items()
    }
    for row in rows:
        for start, end in spans.items():
            if row[start]:
                keys, labels, predicted, probabilities = parts[header[start]]
                keys.append(row[0])
                labels.append(names[start].index(row[start]))
                predicted.append(names[start].index(row[start + 1]))
                probabilities.append([float(value) for value in row[start + 2 : end]])
    return {
        header[start]: TaskPredictions(
            tuple(names[start]),
            parts[header[start]][0],
            *(np.array(column, int) for column in parts[header[start]][1:3]),
            np.array(parts[header[start]][3], float).reshape(-1, len(names[start])),
        )
        for start in starts
    }
