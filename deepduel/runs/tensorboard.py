"""What TensorBoard shows of a run; the horizontal axis is the number of images seen.

Runs: `train` and `validation`, whose tags are the same where they measure the same, and `.` for what
`run_description` writes once.

epoch_MEASURE/TASK        accuracy, loss, roc_auc, skipped_steps of each epoch, of training and of validation
epoch_speed/…             seconds, images_per_second, input_wait_share, left_out (images that do not decode)
step_MEASURE/TASK         once a second: running means since the epoch began
learning_rate/TASK        once a second, and loss_scale/TASK
speed/…                   once a second: images_per_second, input_wait_share, memory_gb, left_out
training_images/TASK      augmented training images with labels and keys
validation_confusion/TASK per epoch: the confusion matrix
validation_mistakes/TASK  per epoch: the most confident wrong predictions, with labels and keys

TensorBoard sorts the cards by these names: what matters first begins with "epoch".
"""

import math
import pathlib
import shlex
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepduel.augmentation import mixing
from deepduel.augmentation.transform import augment
from deepduel.decoding.split import Split
from deepduel.networks.micro_batches import in_micro_batches
from deepduel.runs import event_files, pictures, run_description
from deepduel.runs.mistakes import Mistakes
from deepduel.training import devices, loss_scaling
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.format import records as record_format

SECONDS_BETWEEN_POINTS = 1.0  # more would cost throughput and show nothing more
_SAMPLES = 12
_MEASURES = {"auc": "roc_auc"}  # measure in the logs: in tags, which sort behind accuracy and loss
_RUNS = TRAIN, VALIDATION = "train", "validation"


class Board(keras.callbacks.Callback):
    """Writes `folder` and its subfolders `train` and `validation`, with one writer each for the session."""

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
        self._writers: dict[str, Any] = {}

    def start(self, epoch: int, step: int) -> None:
        """Opens the files; points that an earlier session wrote after this position are removed."""
        last = self._images_seen(epoch, step) if epoch or step else -1
        for name in ("", *_RUNS):
            event_files.forget_after(self._folder / name, last)
            self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))

    def describe(self, flags: str, split: Split, batches: tf.data.Dataset) -> None:
        """Writes what is shown once per run: its description, and augmented images."""
        run_description.write(self._writers[""], flags, self._trainer.tasks)
        batch = next(iter(batches.take(1)))
        images, seeds = batch["images"][:_SAMPLES], batch["seeds"][:_SAMPLES]
        records = batch["records"][:_SAMPLES].numpy().tolist()
        keys = [record_format.key_text(split.key(record)) for record in records]
        with self._writers[TRAIN].as_default(step=0):
            for task in self._trainer.tasks:
                shown = self._augmented(task, images, seeds)
                if task.mixing:
                    mix = mixing.plan(task.mixing, task.size, seeds)
                    shown = mixing.mix_images(shown, tf.gather(shown, mix.partner), mix.keep, mix.box)
                labels = batch["labels"][task.name][:_SAMPLES].numpy().tolist()
                names = [task.model.classes[label] if label >= 0 else "no label" for label in labels]
                captions = list(zip(names, keys, strict=True))
                pixels = np.clip(np.rint(shown.numpy()), 0, 255).astype(np.uint8)
                tf.summary.image(f"training_images/{task.name}", pictures.captioned(pixels, captions))

    def _augmented(self, task: Task, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Augments images in micro-batches of the training step's size, so that it is compiled for both."""
        shown, _ = in_micro_batches(
            lambda images, seeds, filled: (augment(images, seeds, task.augmentation, task.size), ()),
            images,
            seeds,
            rows=tf.TensorSpec((task.size, task.size, 3), tf.float32),
            micro_batch=self._trainer.micro_batch,
        )
        return shown

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._mark(self._trainer.progress.steps_done)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        elapsed = time.perf_counter() - self._clock
        if elapsed < SECONDS_BETWEEN_POINTS:
            return
        waited = self._trainer.progress.input_seconds - self._waited
        images = self._images_seen(self._epoch, self._trainer.progress.steps_done)
        points = {self._tag("step", name): float(value) for name, value in (logs or {}).items()}
        points |= self._rates()
        points["speed/images_per_second"] = (images - self._images_seen(self._epoch, self._step)) / elapsed
        points["speed/input_wait_share"] = waited / elapsed
        points["speed/memory_gb"] = devices.memory_in_use() / 1e9
        self._write(TRAIN, points, images)
        self._mark(self._trainer.progress.steps_done)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        images = (epoch + 1) * self._epoch_images
        points: dict[str, dict[str, float]] = {run: {} for run in _RUNS}
        for name, value in (logs or {}).items():
            run = VALIDATION if name.startswith("val_") else TRAIN
            points[run][self._tag("epoch", name.removeprefix("val_"))] = float(value)
        with self._writers[VALIDATION].as_default(step=images):
            for task in self._trainer.running:
                about = self._trainer.progress.validation, task.name, task.model.classes
                tf.summary.image(f"validation_confusion/{task.name}", self._mistakes.confusion(*about))
                worst = self._mistakes.worst(*about)
                if worst is not None:
                    tf.summary.image(f"validation_mistakes/{task.name}", worst)
        for run in _RUNS:
            self._write(run, points[run], images)

    def close(self) -> None:
        """Closes the files, if they are open."""
        for writer in self._writers.values():
            writer.close()

    def _tag(self, period: str, name: str) -> str:
        """The tag of a column of the logs, whose names are TASK_MEASURE or of the whole run."""
        for task in sorted(self._trainer.tasks, key=lambda task: -len(task.name)):
            if name.startswith(f"{task.name}_"):
                measure = name.removeprefix(f"{task.name}_")
                return f"{period}_{_MEASURES.get(measure, measure)}/{task.name}"
        return f"epoch_speed/{name}" if period == "epoch" else f"speed/{name}"

    def _write(self, run: str, points: dict[str, float], images: int) -> None:
        with self._writers[run].as_default(step=images):
            for tag, value in points.items():
                if math.isfinite(value):  # an AUC of one class
                    tf.summary.scalar(tag, value)
        self._writers[run].flush()  # so that a killed process leaves no gap

    def _rates(self) -> dict[str, float]:
        points = {}
        for task in self._trainer.running:
            points[f"learning_rate/{task.name}"] = float(task.optimizer.learning_rate.numpy())
            scale = loss_scaling.scale_of(task.optimizer)
            if scale is not None:
                points[f"loss_scale/{task.name}"] = scale
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
            view = shlex.join(["tensorboard", f"--logdir={self._folder}"])
            print(
                f"profiled steps {self._first} to {min(self._done, self._last)}; to view the trace: "
                f"pip install xprof, then {view}",
                flush=True,
            )
