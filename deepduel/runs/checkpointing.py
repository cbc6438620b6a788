"""What a run leaves on disk while it trains, which epoch is best, and when it stops."""

import csv
import math
import os
import pathlib
import shutil
import signal
import time

import keras

from deepduel.runs import training_state
from deepduel.runs.length import RunLength
from deepduel.runs.options import MONITORS
from deepduel.training.task import Task
from deepduel.training.trainer import Duel


class Stopped(Exception):
    """Training was asked to stop; the state is saved."""


class Keeper(keras.callbacks.Callback):
    """Saves model files, history.csv and the state after each epoch, the state in between; stops early.

    Args:
      save_seconds, save_steps: how often the state is saved within an epoch; None: not for this reason.
      deadline: time.monotonic() after which training stops; None: never.
      length: of the run; one that is a time is planned anew after each epoch.
    """

    def __init__(
        self,
        duel: Duel,
        workdir: pathlib.Path,
        stand: training_state.State,
        *,
        length: RunLength,
        steps_per_epoch: int,
        save_seconds: float | None,
        save_steps: int | None,
        deadline: float | None,
    ):
        super().__init__()
        self._duel = duel
        self._workdir = workdir
        self._digits = max(2, len(str(length.epochs or 0)))
        self._length = length
        self._steps_per_epoch = steps_per_epoch
        self._seconds = save_seconds
        self._steps = save_steps
        self._deadline = deadline
        self._asked: str | None = None
        self._epoch = stand.epoch
        self._best = dict(stand.best)
        self._stopped = dict(stand.stopped)
        self._saved = time.monotonic()
        self._writer = training_state.Writer(workdir / "resume")
        self.history = list(stand.history)
        for task in duel.tasks:
            if task.name in self._stopped:
                duel.stop(task)
        self.planned = self._plan()

    def listen(self) -> None:
        """Lets SIGTERM and Ctrl-C stop training after the running step, with the state saved."""

        def ask(number, frame):
            if self._asked:  # the second time, whoever it is means it
                raise KeyboardInterrupt
            self._asked = signal.Signals(number).name

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self._duel.steps_done >= self._steps_per_epoch:
            return  # the end of the epoch saves, once validation is done
        over = self._over()
        due = self._steps is not None and self._duel.steps_done % self._steps == 0
        due |= self._seconds is not None and time.monotonic() - self._saved >= self._seconds
        if due or over:
            self.save()
        self._stop_if_asked()

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        self.history.append(row)
        with self._duel.averaged():
            for task in self._duel.running:
                self._save_model(task, epoch + 1, row[f"val_{task.name}_{task.monitor}"])
        self._write_history()
        for task in list(self._duel.running):
            self._stop_early(task, epoch + 1)
        self._epoch, self._duel.steps_done = epoch + 1, 0
        self.planned = self._plan()
        self.save()
        if self.planned <= self._epoch:
            self._duel.stop_training = True
        self._stop_if_asked()

    def pause(self) -> None:
        """Between steps: raises Stopped, the state saved, when that is asked for or the time is over."""
        if self._over():
            self.save()
        self._stop_if_asked()

    def save(self) -> None:
        """Publishes the state of now; the files are written in the background."""
        stand = training_state.State(
            self._epoch, self._duel.steps_done, tuple(self.history), dict(self._best), dict(self._stopped)
        )
        self._writer.save(stand, self._duel.state_variables())
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Waits until the last state is on disk."""
        self._writer.wait()

    def _plan(self) -> int | None:
        planned = self._length.planned([row["seconds"] for row in self.history])
        if self._length.epochs is None and planned:
            self._duel.planned_steps.assign(planned * self._steps_per_epoch)
        return planned

    def _over(self) -> bool:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._asked = self._asked or "--max_minutes"
        return bool(self._asked)

    def _stop_if_asked(self) -> None:
        if self._asked:
            self.finish()
            raise Stopped(
                f"{self._asked}: stopped and saved at epoch {self._epoch + 1}, step {self._duel.steps_done}"
            )

    def _stop_early(self, task: Task, epoch: int) -> None:
        best, of_epoch = self._best[task.name]
        if not task.patience or epoch - of_epoch < task.patience:
            return
        self._stopped[task.name] = epoch
        self._duel.stop(task)
        print(
            f"{task.name}: no better {task.monitor} for {task.patience} epochs, stopped; "
            f"the best is epoch {of_epoch} ({best:.4g})",
            flush=True,
        )
        if not self._duel.running:
            self._duel.stop_training = True

    def _save_model(self, task: Task, epoch: int, value: float) -> None:
        folder = self._workdir / task.name
        folder.mkdir(exist_ok=True)
        path = folder / f"epoch-{epoch:0{self._digits}d}.keras"
        partial = folder / ".partial.keras"
        task.model.saved_model.save(partial)
        partial.replace(path)
        if task.name not in self._best or _better(task.monitor, value, self._best[task.name][0]):
            self._best[task.name] = value, epoch
            _copy(path, folder / "best.keras")

    def _write_history(self) -> None:
        path = self._workdir / "history.csv"
        partial = path.with_name(".history.csv.partial")
        columns = dict.fromkeys(name for row in self.history for name in row)  # those of stopped tasks too
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(self.history)
        partial.replace(path)


def _better(monitor: str, value: float, best: float) -> bool:
    """Whether `value` beats `best`; what is not a number never does."""
    return not math.isnan(value) and (math.isnan(best) or MONITORS[monitor] * (value - best) > 0)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A second name for the same bytes where the file system can, else a copy; by rename."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)
