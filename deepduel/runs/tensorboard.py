"""What TensorBoard shows of a run; the horizontal axis is the number of images seen.

train/…       once a second: per task loss, accuracy, auc, skipped_steps, learning_rate, loss_scale; and
              images_per_second, input_wait_share, memory_gb
epoch/…       all columns of history.csv
augmented/…   per task: augmented training images with labels and keys
confusion/…   per task and epoch: the confusion matrix of the validation
mistakes/…    per task and epoch: the most confident wrong predictions, with labels and keys
flags         as text, and as hyperparameters of the HPARAMS page
"""

import math
import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from deepduel.augmentation import mixing
from deepduel.augmentation.transform import augment
from deepduel.decoding.split import Split
from deepduel.runs import event_files, pictures
from deepduel.runs.mistakes import Mistakes
from deepduel.training import devices, loss_scaling
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.format import records as record_format

SECONDS_BETWEEN_POINTS = 1.0  # more would cost throughput and show nothing more
_SAMPLES = 12
_TABLE = 40  # classes; a larger confusion matrix cannot be read


class Board(keras.callbacks.Callback):
    """Writes `folder`, with one writer for the entire session."""

    def __init__(
        self,
        trainer: MultiTaskTrainer,
        folder: pathlib.Path,
        *,
        images: int,
        batch_size: int,
        mistakes: Mistakes,
    ):
        """Args:
        images: in the training split.
        """
        super().__init__()
        self._trainer = trainer
        self._folder = folder
        self._batch_size = batch_size
        self._epoch_images = images
        self._mistakes = mistakes
        self._writer: Any = None

    def start(self, epoch: int, step: int) -> None:
        """Opens the files; points that an earlier session wrote after this position are removed."""
        begun = epoch or step
        event_files.forget_after(self._folder, self._images_seen(epoch, step) if begun else -1)
        self._writer = tf.summary.create_file_writer(str(self._folder))

    def describe(self, flags: str, split: Split, batches: tf.data.Dataset) -> None:
        """Writes what is shown once per run: the flags and augmented images."""
        values = _hyperparameters(flags)
        with self._writer.as_default(step=0):
            tf.summary.text("flags", "\n".join(f"    {line}" for line in flags.splitlines()))
            # Without this list TensorBoard would look for the metrics in subfolders of the logdir only.
            hparams.hparams_config(
                hparams=[hparams.HParam(name) for name in values],
                metrics=[
                    hparams.Metric(f"epoch/val_{task.name}_{measure}", display_name=f"{task.name} {measure}")
                    for task in self._trainer.tasks
                    for measure in ("accuracy", "auc", "loss")
                ],
            )
            hparams.hparams(values)
        batch = next(iter(batches.take(1)))
        images, seeds = batch["images"][:_SAMPLES], batch["seeds"][:_SAMPLES]
        records = batch["records"][:_SAMPLES].numpy().tolist()
        keys = [record_format.key_text(split.key(record)) for record in records]
        with self._writer.as_default(step=0):
            for task in self._trainer.tasks:
                shown = augment(images, seeds, task.augmentation, task.size)
                if task.mixing:
                    mix = mixing.plan(task.mixing, task.size, seeds)
                    shown = mixing.mix_images(shown, tf.gather(shown, mix.partner), mix.keep, mix.box)
                labels = batch["labels"][task.name][:_SAMPLES].numpy().tolist()
                names = [task.model.classes[label] if label >= 0 else "no label" for label in labels]
                captions = list(zip(names, keys, strict=True))
                pixels = np.clip(np.rint(shown.numpy()), 0, 255).astype(np.uint8)
                tf.summary.image(f"augmented/{task.name}", pictures.captioned(pixels, captions))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._mark(self._trainer.progress.steps_done)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        elapsed = time.perf_counter() - self._clock
        if elapsed < SECONDS_BETWEEN_POINTS:
            return
        waited = self._trainer.progress.input_seconds - self._waited
        images = self._images_seen(self._epoch, self._trainer.progress.steps_done)
        points = {name: float(value) for name, value in (logs or {}).items()} | self._rates()
        points["images_per_second"] = (images - self._images_seen(self._epoch, self._step)) / elapsed
        points["input_wait_share"] = waited / elapsed
        points["memory_gb"] = devices.memory_in_use() / 1e9
        self._write("train", points, images)
        self._mark(self._trainer.progress.steps_done)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        images = (epoch + 1) * self._epoch_images
        self._write("epoch", {name: float(value) for name, value in (logs or {}).items()}, images)
        with self._writer.as_default(step=images):
            for task in self._trainer.running:
                about = self._trainer.progress.validation, task.name, task.model.classes
                if task.classes <= _TABLE:
                    tf.summary.image(f"confusion/{task.name}", self._mistakes.confusion(*about))
                worst = self._mistakes.worst(*about)
                if worst is not None:
                    tf.summary.image(f"mistakes/{task.name}", worst)
        self._writer.flush()

    def close(self) -> None:
        """Closes the files, if they are open."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, group: str, points: dict[str, float], images: int) -> None:
        with self._writer.as_default(step=images):
            for name, value in points.items():
                if math.isfinite(value):  # an AUC of one class
                    tf.summary.scalar(f"{group}/{name}", value)
        self._writer.flush()  # so that a killed process leaves no gap

    def _rates(self) -> dict[str, float]:
        points = {}
        for task in self._trainer.running:
            points[f"{task.name}_learning_rate"] = float(task.optimizer.learning_rate.numpy())
            scale = loss_scaling.scale_of(task.optimizer)
            if scale is not None:
                points[f"{task.name}_loss_scale"] = scale
        return points

    def _images_seen(self, epoch: int, step: int) -> int:
        """Images trained on so far, at a position of the run."""
        return epoch * self._epoch_images + min(step * self._batch_size, self._epoch_images)

    def _mark(self, step: int) -> None:
        self._step = step
        self._clock = time.perf_counter()
        self._waited = self._trainer.progress.input_seconds


class Profile(keras.callbacks.Callback):
    """Traces steps `first` to `last` of this session (from 1) for TensorBoard's profiler; 0 for none."""

    def __init__(self, folder: pathlib.Path, first: int, last: int):
        super().__init__()
        self._folder = folder
        self._first, self._last = first, last
        self._done = 0
        self._running = False

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._done + 1 == self._first:
            tf.profiler.experimental.start(str(self._folder))
            self._running = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._done += 1
        if self._done == self._last:
            self.finish()

    def finish(self) -> None:
        """Writes the trace, also when training ends before its last step."""
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False
            print(
                f"profiled steps {self._first} to {min(self._done, self._last)}; to view the trace: "
                f"pip install xprof, then tensorboard --logdir={self._folder}",
                flush=True,
            )


def _hyperparameters(flags: str) -> dict[str, str | float]:
    """{flag: value} of a flagfile; several values of one flag are joined with spaces."""
    values: dict[str, str | float] = {}
    for line in flags.splitlines():
        if line.startswith("--") and "=" in line:
            name, _, value = line.removeprefix("--").partition("=")
            values[name] = f"{values[name]} {value}" if name in values else value
    for name, text in values.items():
        try:
            values[name] = float(text)
        except ValueError:
            continue
    return values
