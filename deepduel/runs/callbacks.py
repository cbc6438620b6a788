"""What accompanies the training steps: the clock and the console.

`MultiTaskTrainer.progress` counts the steps of the current epoch, those of an earlier session included.
`Clock` adds columns to an epoch's logs, so it comes before the callbacks that show or store them.
"""

import time
from collections.abc import Callable
from typing import Any

import keras

from deepduel.decoding.split import Split
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools import terminal
from tfrecords_tools.progress import Progress, counted, duration, per_second

Logs = dict[str, Any]


class Clock(keras.callbacks.Callback):
    """Adds to an epoch's logs what it cost in this session.

    "seconds" is the time of training and validation, "images_per_second" the throughput of training alone,
    and "input_wait_share" the part of the training time spent waiting for batches. In a team they are
    those of worker 0, but the share is the largest of all: the others wait for that worker.
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
        self._team = trainer.team
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
        seconds = time.perf_counter() - self._started
        rate = (self._images - self._earlier_images) / self._trained
        parts = self._team.gather([seconds, rate, self._waited / self._trained])
        logs["seconds"], logs["images_per_second"], _ = parts[0]
        logs["input_wait_share"] = max(share for _, _, share in parts)


class Console(keras.callbacks.Callback):
    """Shows progress during an epoch, and one line per epoch, or several in a narrow terminal."""

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
            images = " and ".join(
                counted(count, f"{split} image") for split, count in counts.items() if count
            )
            parts.append(f"left out, as they cannot be decoded: {images}")
        print(terminal.joined(parts), flush=True)

    def _numbered(self) -> str:
        epochs = self._epochs()
        return f"{self._epoch}/{epochs}" if epochs else str(self._epoch)

    def _accuracies(self, logs: Logs) -> str:
        return ", ".join(
            f"{task.name} {float(logs[f'{task.name}_accuracy']):.1%}" for task in self._trainer.running
        )
