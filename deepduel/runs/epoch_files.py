"""The files that each epoch leaves for users: a model per task, the best one, and history.csv.

RUN/<task>/epoch-01.keras …   one self-contained model per epoch
RUN/<task>/best.keras         the one of the epoch that is best by the task's monitored metric
RUN/history.csv               one row per epoch
"""

import csv
import os
import pathlib
import shutil
from typing import Any

import keras

from deepduel.networks import keras_file
from deepduel.runs.options import better
from deepduel.runs.training_state import State
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.atomic import published, written_beside


class EpochFiles(keras.callbacks.Callback):
    """Writes the files at the end of each epoch, and keeps `state.history` and `state.best`.

    In a team worker 0 writes.
    """

    def __init__(
        self,
        trainer: MultiTaskTrainer,
        workdir: pathlib.Path,
        state: State,
        *,
        epochs: int | None,
        keep_epochs: int = 0,
    ):
        """Args:
        epochs: how many there will be, for the width of the number in the names; None if not known.
        keep_epochs: how many epochs' models are kept, besides the best one; 0 for all.
        """
        super().__init__()
        self._trainer = trainer
        self._workdir = workdir
        self._state = state
        self._keep_epochs = keep_epochs
        self._digits = max(2, len(str(epochs or 0)))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        self._state.history.append(row)
        improved = [task.name for task in self._trainer.running if self._is_best(task, row)]
        if not self._trainer.team.leads:
            return
        with self._trainer.averaged():
            for task in self._trainer.running:
                self._save_model(task, epoch + 1, is_best=task.name in improved)
        self._write_history()

    def _is_best(self, task: Task, row: dict[str, Any]) -> bool:
        """Whether the epoch of this row is better than all before it; it is the best one then.

        Of epochs with the same value, which is usual where the validation split is small, the one with the
        lowest loss is the best.
        """
        best, value, loss = self._state.best, row[f"val_{task.name}_{task.monitor}"], f"val_{task.name}_loss"
        if task.name in best and not better(task.monitor, value, best[task.name][0]):
            is_equal = value == best[task.name][0]
            if not (is_equal and better("loss", row[loss], self._state.value_at_best(task.name, loss))):
                return False
        best[task.name] = value, row["epoch"]
        return True

    def _save_model(self, task: Task, epoch: int, *, is_best: bool) -> None:
        folder = self._workdir / task.name
        folder.mkdir(exist_ok=True)
        path = folder / f"epoch-{epoch:0{self._digits}d}.keras"
        keras_file.save(task.model.saved_model, path)
        if is_best:
            _link(path, folder / "best.keras")
        if self._keep_epochs:
            _remove_epochs(folder, epoch - self._keep_epochs)

    def _write_history(self) -> None:
        history = self._state.history
        columns = dict.fromkeys(name for row in history for name in row)  # those of stopped tasks too
        with published(self._workdir / "history.csv") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(history)


def _remove_epochs(folder: pathlib.Path, last: int) -> None:
    """Removes the models of the epochs up to `last`, counted from 1."""
    for path in folder.glob("epoch-*.keras"):
        number = path.stem.removeprefix("epoch-")
        if number.isdecimal() and int(number) <= last:
            path.unlink(missing_ok=True)


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
    """Publishes a second name for the same bytes where the file system can, else a copy."""
    with written_beside(target) as partial:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
