"""What accompanies the training steps: the clock, the console, the list of steps that are not finite.

`MultiTaskTrainer.progress` counts the steps of the current epoch, those of an earlier session included.
`Clock` adds columns to an epoch's logs, so it comes before the callbacks that show or store them.
"""

import csv
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras

from deepduel.decoding.split import Split
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools import regular_files
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records as record_format
from tfrecords_tools.progress import Progress, duration, per_second

MAX_NON_FINITE = 10  # steps in a row without a finite loss and gradient, then training stops

Logs = dict[str, Any]


class Clock(keras.callbacks.Callback):
    """Adds to an epoch's logs what it cost in this session.

    "seconds" is the time of training and validation, "images_per_second" the throughput of training alone,
    and "input_wait_share" the part of the training time spent waiting for batches.
    """

    def __init__(
        self, trainer: MultiTaskTrainer, *, images: int, batch_size: int, earlier_seconds: float = 0.0
    ):
        """Args:
        images: in the training split.
        batch_size: images per update.
        earlier_seconds: what the first epoch took before it began, for computing features.
        """
        super().__init__()
        self._progress = trainer.progress
        self._images = images
        self._batch_size = batch_size
        self._earlier_seconds = earlier_seconds

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._earlier_images = self._progress.steps_done * self._batch_size
        self._started = time.perf_counter() - self._earlier_seconds
        self._earlier_seconds = 0.0
        self._waited = self._progress.input_seconds

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._trained = time.perf_counter() - self._started
        self._waited = self._progress.input_seconds - self._waited

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is None:
            return
        logs["seconds"] = time.perf_counter() - self._started
        logs["images_per_second"] = (self._images - self._earlier_images) / self._trained
        logs["input_wait_share"] = self._waited / self._trained


class Console(keras.callbacks.Callback):
    """Shows progress during an epoch, and one line per epoch of up to 100 columns."""

    def __init__(
        self,
        trainer: MultiTaskTrainer,
        train_split: Split,
        validation_split: Split,
        *,
        batch_size: int,
        epochs: Callable[[], int | None],
    ):
        """Args:
        epochs: gives the number of epochs planned in total, None while it is not known.
        """
        super().__init__()
        self._trainer = trainer
        self._images = len(train_split)
        self._validation_images = len(validation_split)
        self._batch_size = batch_size
        self._epochs = epochs
        self._epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self._epoch is None:
            print("each epoch: training loss and validation accuracy of each task", flush=True)
        self._epoch = epoch + 1
        self._bar = Progress(f"epoch {self._numbered()}", total=self._images)
        self._bar.start_from(self._trainer.progress.steps_done * self._batch_size)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        done = min(self._trainer.progress.steps_done * self._batch_size, self._images)
        self._bar.update(done, self._accuracies(logs or {}))

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._bar.close()
        self._bar = Progress("validating", total=self._validation_images)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        done = min((batch + 1) * self._batch_size, self._validation_images)
        self._bar.update(done, self._accuracies(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._bar.close()
        logs = logs or {}
        parts = [f"epoch {self._numbered()}"]
        for task in self._trainer.running:
            loss, accuracy = logs[f"{task.name}_loss"], logs[f"val_{task.name}_accuracy"]
            parts.append(f"{task.name} {loss:.4f} {accuracy:.2%}")
        parts.append(f"{per_second(logs['images_per_second'])} images/s, {duration(logs['seconds'])}")
        counts = {"training": int(logs["left_out"]), "validation": int(logs["val_left_out"])}
        if any(counts.values()):
            images = " and ".join(f"{count:,} {split} images" for split, count in counts.items() if count)
            parts.append(f"{images} cannot be decoded and are left out")
        print(" | ".join(parts), flush=True)

    def _numbered(self) -> str:
        epochs = self._epochs()
        return f"{self._epoch}/{epochs}" if epochs else str(self._epoch)

    def _accuracies(self, logs: Logs) -> str:
        return ", ".join(
            f"{task.name} {float(logs[f'{task.name}_accuracy']):.1%}" for task in self._trainer.running
        )


class NonFinite(keras.callbacks.Callback):
    """Lists the images of each step that was skipped because its loss or a gradient was not finite.

    RUN/non_finite.csv has the columns task, epoch (from 1), step (from 0), key. After `MAX_NON_FINITE` such
    steps in a row training stops with a DataError: the weights would not change any more.
    """

    def __init__(self, trainer: MultiTaskTrainer, split: Split, path: pathlib.Path, save: Callable[[], None]):
        """Args:
        split: the training split, for the keys of its records.
        path: the file.
        save: saves the run's state.
        """
        super().__init__()
        self._trainer = trainer
        self._split = split
        self._path = path
        self._save = save
        self._in_a_row = dict.fromkeys((task.name for task in trainer.tasks), 0)

    def start(self, epoch: int, step: int) -> None:
        """Removes what an earlier session listed of this step (both counted from 0) and later ones."""
        if not self._path.exists():
            return
        try:
            with regular_files.open_text(self._path) as file:
                head, *rows = csv.reader(file)
            kept = [row for row in rows if (int(row[1]) - 1, int(row[2])) < (epoch, step)]
        except (OSError, ValueError, IndexError, csv.Error) as error:
            raise DataError(f"{self._path}: unreadable ({error}); remove it, and resume again") from error
        with published(self._path) as file:
            csv.writer(file).writerows([head, *kept])

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
            self._list(task)
            if self._in_a_row[task.name] >= MAX_NON_FINITE:
                self._give_up(task)

    def _list(self, task: Task) -> None:
        new, progress = not self._path.exists(), self._trainer.progress
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("task", "epoch", "step", "key"))
            for record in progress.records.tolist():
                key = record_format.key_text(self._split.key(record))
                writer.writerow((task.name, self._epoch + 1, progress.steps_done - 1, key))

    def _give_up(self, task: Task) -> None:
        self._save()
        rate = float(task.optimizer.learning_rate.numpy())
        raise DataError(
            f"{task.name}: {MAX_NON_FINITE} steps in a row had a loss or gradient that is not finite, "
            f"and were skipped; possible causes are the learning rate ({rate:g}), the precision "
            f"({task.model.architecture.precision}) and the images listed in {self._path}; "
            "the last good state is saved"
        )
