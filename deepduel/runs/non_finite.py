"""The list of steps without a finite loss and gradient, and the end of a run that has no others."""

import csv
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from deepduel.decoding.split import Split
from deepduel.runs.loss_range import limit
from deepduel.runs.training_state import Position, State
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools import regular_files, terminal
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records as record_format

MAX_NON_FINITE = 10  # steps in a row without a finite loss and gradient, then training stops
_COLUMNS = ("task", "epoch", "step", "key")

Logs = dict[str, Any]


class NonFinite(keras.callbacks.Callback):
    """Lists the images of each step that was skipped because its loss or a gradient was not finite.

    RUN/non_finite.csv has the columns task, epoch (from 1), step (from 0), key. After `MAX_NON_FINITE` such
    steps in a row training stops with a DataError: the weights would not change any more. States after the
    last one that is known to be good (see loss_range) are removed, because their weights may be the cause.
    """

    def __init__(
        self,
        trainer: MultiTaskTrainer,
        split: Split,
        path: pathlib.Path,
        state: State,
        *,
        rewind: Callable[[Position], Position | None],
    ):
        """Args:
        split: the training split, for the keys of its records.
        path: the file.
        state: of the run.
        rewind: removes the states after a position; see `Checkpoint.rewind`.
        """
        super().__init__()
        self._trainer = trainer
        self._split = split
        self._path = path
        self._state = state
        self._rewind = rewind
        self._in_a_row = dict.fromkeys((task.name for task in trainer.tasks), 0)

    def start(self, epoch: int, step: int) -> None:
        """Removes what an earlier session listed of this step (both counted from 0) and later ones."""
        if not self._trainer.team.leads or not self._path.exists():
            return
        try:
            with regular_files.open_text(self._path, errors="backslashreplace") as file:
                rows = list(csv.reader(file))[1:]
            whole = [row for row in rows if len(row) == len(_COLUMNS)]  # a kill may have cut off the last one
            kept = [row for row in whole if (int(row[1]) - 1, int(row[2])) < (epoch, step)]
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{self._path}: unreadable ({error}); remove it, and resume again") from error
        with published(self._path) as file:
            csv.writer(file).writerows([_COLUMNS, *kept])

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        metrics = self._trainer.task_metrics
        self._counted = {name: of_task.skipped_steps for name, of_task in metrics.items()}

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        for task in self._trainer.running:
            skipped = int((logs or {})[f"{task.name}_skipped_steps"])
            if skipped == self._counted[task.name]:
                self._in_a_row[task.name] = 0
                continue
            self._counted[task.name] = skipped
            self._in_a_row[task.name] += 1
            if self._trainer.team.leads:
                self._list(task)
            if self._in_a_row[task.name] >= MAX_NON_FINITE:
                self._give_up(task)

    def _list(self, task: Task) -> None:
        new, progress = not self._path.exists(), self._trainer.progress
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(_COLUMNS)
            for record in progress.records.tolist():
                key = terminal.path_cell(record_format.key_text(self._split.key(record)))
                writer.writerow((task.name, self._epoch + 1, progress.steps_done - 1, key))

    def _give_up(self, task: Task) -> None:
        rate = float(task.optimizer.learning_rate.numpy())
        in_range = self._state.in_range.get(task.name)
        kept = self._rewind(in_range or (0, 0))
        step = _text((self._epoch, self._trainer.progress.steps_done))
        last = (
            f"last up to {limit(task.classes):.1f} at {_text(in_range)}" if in_range else "never in its range"
        )
        state = f"that of {_text(kept)}" if kept else "the beginning of the run"
        raise DataError(
            f"{task.name}: {MAX_NON_FINITE} steps in a row up to {step} had a loss or gradient that is "
            f"not finite, and were skipped; the loss was {last}. Possible causes are the learning rate "
            f"({rate:g}), the precision ({task.model.architecture.precision}) and the images listed "
            f"in {self._path}. The last good state is {state}: resume with a lower "
            "--learning_rate, or begin again in another --workdir with --clip_norm=1"
        )


def _text(position: Position) -> str:
    epoch, step = position
    return f"epoch {epoch + 1}, step {step}"
