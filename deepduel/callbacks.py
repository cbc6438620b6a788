"""What goes on around the training steps: the clock, the console, the files, the stops.

`Duel.steps_done` counts the steps of the running epoch, those of an earlier session included.
Order matters: `Clock` adds columns to an epoch's logs, the others show and keep them, and
`Keeper` comes last, so that a state on disk says that all before it is done.
"""

import csv
import os
import pathlib
import shutil
import signal
import time

import keras

from deepduel import state
from deepduel.shards import Split
from deepduel.task import Task
from deepduel.training import Duel
from tfrecords_tools import records as record_format
from tfrecords_tools.cli import DataError
from tfrecords_tools.progress import Progress, duration

MAX_NON_FINITE = 10  # steps in a row without a finite loss and gradient, then training stops


class Stopped(Exception):
    """Training was asked to stop; the state is saved."""


class Clock(keras.callbacks.Callback):
    """Adds to an epoch's logs what it cost, in this session."""

    def __init__(self, duel: Duel, *, images: int, batch_size: int, before: float = 0.0):
        """Args:
        before: seconds spent on the first epoch already, on making features.
        """
        super().__init__()
        self._duel = duel
        self._images = images
        self._batch_size = batch_size
        self._before = before

    def on_epoch_begin(self, epoch, logs=None):
        self._earlier = self._duel.steps_done * self._batch_size
        self._started = time.perf_counter() - self._before
        self._before = 0.0
        self._waited = self._duel.input_seconds

    def on_test_begin(self, logs=None):
        self._trained = time.perf_counter() - self._started
        self._waited = self._duel.input_seconds - self._waited

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self._started
        logs["images_per_second"] = (self._images - self._earlier) / self._trained
        logs["input_wait_share"] = self._waited / self._trained


class Console(keras.callbacks.Callback):
    """Progress while an epoch runs, and one line per epoch."""

    def __init__(self, duel: Duel, train_split: Split, validation_split: Split, *, batch_size, epochs):
        super().__init__()
        self._duel = duel
        self._images = len(train_split)
        self._validation_images = len(validation_split)
        self._splits = train_split, validation_split
        self._batch_size = batch_size
        self._epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1
        self._bar = Progress(f"epoch {self._epoch}/{self._epochs}", total=self._images)
        self._bar.start_from(self._duel.steps_done * self._batch_size)

    def on_train_batch_end(self, batch, logs=None):
        done = min(self._duel.steps_done * self._batch_size, self._images)
        self._bar.update(done, self._accuracies(logs))

    def on_test_begin(self, logs=None):
        self._bar.close()
        self._bar = Progress("validating", total=self._validation_images)

    def on_test_batch_end(self, batch, logs=None):
        done = min((batch + 1) * self._batch_size, self._validation_images)
        self._bar.update(done, self._accuracies(logs))

    def on_epoch_end(self, epoch, logs=None):
        self._bar.close()
        parts = [f"epoch {self._epoch}/{self._epochs}"]
        for task in self._duel.tasks:
            loss, accuracy = logs[f"{task.name}_loss"], logs[f"val_{task.name}_accuracy"]
            parts.append(f"{task.name} loss {loss:.4f}, validation {accuracy:.2%}")
        parts.append(f"{logs['images_per_second']:,.0f} images/s, {duration(logs['seconds'])}")
        left_out = sum(len(split.bad) for split in self._splits)
        if left_out:
            parts.append(f"{left_out} images do not decode and are left out")
        print(" | ".join(parts), flush=True)

    def _accuracies(self, logs) -> str:
        return ", ".join(
            f"{task.name} {float(logs[f'{task.name}_accuracy']):.1%}" for task in self._duel.tasks
        )


class NonFinite(keras.callbacks.Callback):
    """Lists the images of each step that was skipped for a non-finite loss or gradient.

    RUN/non_finite.csv: task, epoch (from 1), step (from 0), key. After `MAX_NON_FINITE` such
    steps in a row training stops: nothing would be learnt any more.
    """

    def __init__(self, duel: Duel, split: Split, path: pathlib.Path, keeper: "Keeper"):
        super().__init__()
        self._duel = duel
        self._split = split
        self._path = path
        self._keeper = keeper
        self._in_a_row = dict.fromkeys((task.name for task in duel.tasks), 0)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._counted = {task.name: self._duel.skipped_steps(task) for task in self._duel.tasks}

    def on_train_batch_end(self, batch, logs=None):
        for task in self._duel.tasks:
            skipped = int(logs[f"{task.name}_skipped_steps"])
            if skipped == self._counted[task.name]:
                self._in_a_row[task.name] = 0
                continue
            self._counted[task.name] = skipped
            self._in_a_row[task.name] += 1
            self._list(task)
            if self._in_a_row[task.name] >= MAX_NON_FINITE:
                self._give_up(task)

    def _list(self, task: Task) -> None:
        new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("task", "epoch", "step", "key"))
            for record in self._duel.last_records.tolist():
                key = record_format.key_text(self._split.key(record))
                writer.writerow((task.name, self._epoch + 1, self._duel.steps_done - 1, key))

    def _give_up(self, task: Task) -> None:
        self._keeper.save()
        rate = float(task.optimizer.learning_rate)
        raise DataError(
            f"{task.name}: {MAX_NON_FINITE} steps in a row had a loss or gradient that is not finite, "
            f"and were skipped; the suspects are the learning rate ({rate:g}), the precision "
            f"({task.model.architecture.precision}) and the images listed in {self._path}; "
            "the last good state is saved"
        )


class Keeper(keras.callbacks.Callback):
    """Saves: model files, history.csv and the state after each epoch, the state in between.

    Args:
      seconds, steps: how often the state is saved within an epoch; None: not for this reason.
      deadline: time.monotonic() after which training stops; None: never.
    """

    def __init__(
        self,
        duel: Duel,
        workdir: pathlib.Path,
        stand: state.State,
        *,
        epochs: int,
        steps_per_epoch: int,
        save_seconds: float | None,
        save_steps: int | None,
        deadline: float | None,
    ):
        super().__init__()
        self._duel = duel
        self._workdir = workdir
        self._digits = max(2, len(str(epochs)))
        self._steps_per_epoch = steps_per_epoch
        self._seconds = save_seconds
        self._steps = save_steps
        self._deadline = deadline
        self._asked: str | None = None
        self._epoch = stand.epoch
        self._best = dict(stand.best)
        self._saved = time.monotonic()
        self.history = list(stand.history)

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
        for task in self._duel.tasks:
            self._save_model(task, epoch + 1, row[f"val_{task.name}_accuracy"])
        self._write_history()
        self._epoch, self._duel.steps_done = epoch + 1, 0
        self.save()
        self._stop_if_asked()

    def pause(self) -> None:
        """Between steps: raises Stopped, the state saved, when that is asked for or the time is over."""
        if self._over():
            self.save()
        self._stop_if_asked()

    def save(self) -> None:
        """Publishes the state of now."""
        stand = state.State(self._epoch, self._duel.steps_done, tuple(self.history), self._best)
        state.save(self._workdir / "resume", stand, self._duel.state_variables())
        self._saved = time.monotonic()

    def _over(self) -> bool:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._asked = self._asked or "--max_minutes"
        return bool(self._asked)

    def _stop_if_asked(self) -> None:
        if self._asked:
            raise Stopped(
                f"{self._asked}: stopped and saved at epoch {self._epoch + 1}, step {self._duel.steps_done}"
            )

    def _save_model(self, task: Task, epoch: int, accuracy: float) -> None:
        folder = self._workdir / task.name
        folder.mkdir(exist_ok=True)
        path = folder / f"epoch-{epoch:0{self._digits}d}.keras"
        partial = folder / ".partial.keras"
        task.model.saved_model.save(partial)
        partial.replace(path)
        if task.name not in self._best or accuracy > self._best[task.name][0]:
            self._best[task.name] = accuracy, epoch
            _copy(path, folder / "best.keras")

    def _write_history(self) -> None:
        path = self._workdir / "history.csv"
        partial = path.with_name(".history.csv.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.history[-1]))
            writer.writeheader()
            writer.writerows(self.history)
        partial.replace(path)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A second name for the same bytes where the file system can, else a copy; by rename."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)
