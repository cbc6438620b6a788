"""What goes on around the training steps: the clock, the console, the list of non-finite steps.

`Duel.steps_done` counts the steps of the running epoch, those of an earlier session included.
Order matters: `Clock` adds columns to an epoch's logs, the others show and keep them, and
`keeper.Keeper` comes last, so that a state on disk says that all before it is done.
"""

import csv
import pathlib
import time
from collections.abc import Callable

import keras

from deepduel.decoding.split import Split
from deepduel.training.task import Task
from deepduel.training.trainer import Duel
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records as record_format
from tfrecords_tools.progress import Progress, duration, per_second

MAX_NON_FINITE = 10  # steps in a row without a finite loss and gradient, then training stops


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
    """Progress while an epoch runs, and one line per epoch that fits 100 columns."""

    def __init__(
        self,
        duel: Duel,
        train_split: Split,
        validation_split: Split,
        *,
        batch_size,
        epochs: Callable[[], int | None],
    ):
        """Args:
        epochs: gives how many are planned in all, as far as that is known.
        """
        super().__init__()
        self._duel = duel
        self._images = len(train_split)
        self._validation_images = len(validation_split)
        self._batch_size = batch_size
        self._epochs = epochs
        self._epoch: int | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._epoch is None:
            print("each epoch: training loss and validation accuracy of each task", flush=True)
        self._epoch = epoch + 1
        self._bar = Progress(f"epoch {self._numbered()}", total=self._images)
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
        parts = [f"epoch {self._numbered()}"]
        for task in self._duel.running:
            loss, accuracy = logs[f"{task.name}_loss"], logs[f"val_{task.name}_accuracy"]
            parts.append(f"{task.name} {loss:.4f} {accuracy:.2%}")
        parts.append(f"{per_second(logs['images_per_second'])} images/s, {duration(logs['seconds'])}")
        counts = {"training": int(logs["left_out"]), "validation": int(logs["val_left_out"])}
        if any(counts.values()):
            told = " and ".join(f"{count:,} {what} images" for what, count in counts.items() if count)
            parts.append(f"{told} do not decode and are left out")
        print(" | ".join(parts), flush=True)

    def _numbered(self) -> str:
        epochs = self._epochs()
        return f"{self._epoch}/{epochs}" if epochs else str(self._epoch)

    def _accuracies(self, logs) -> str:
        return ", ".join(
            f"{task.name} {float(logs[f'{task.name}_accuracy']):.1%}" for task in self._duel.running
        )


class NonFinite(keras.callbacks.Callback):
    """Lists the images of each step that was skipped for a non-finite loss or gradient.

    RUN/non_finite.csv: task, epoch (from 1), step (from 0), key. After `MAX_NON_FINITE` such
    steps in a row training stops: nothing would be learnt any more.
    """

    def __init__(self, duel: Duel, split: Split, path: pathlib.Path, save: Callable[[], None]):
        super().__init__()
        self._duel = duel
        self._split = split
        self._path = path
        self._save = save
        self._in_a_row = dict.fromkeys((task.name for task in duel.tasks), 0)

    def start(self, epoch: int, step: int) -> None:
        """Forgets what an earlier session listed of this step (counted from 0) and later ones."""
        if not self._path.exists():
            return
        with self._path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        kept = [row for row in rows if (int(row[1]) - 1, int(row[2])) < (epoch, step)]
        with published(self._path) as file:
            csv.writer(file).writerows([head, *kept])

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._counted = {task.name: self._duel.skipped_steps(task) for task in self._duel.tasks}

    def on_train_batch_end(self, batch, logs=None):
        for task in self._duel.running:
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
        self._save()
        rate = float(task.optimizer.learning_rate)
        raise DataError(
            f"{task.name}: {MAX_NON_FINITE} steps in a row had a loss or gradient that is not finite, "
            f"and were skipped; the suspects are the learning rate ({rate:g}), the precision "
            f"({task.model.architecture.precision}) and the images listed in {self._path}; "
            "the last good state is saved"
        )
