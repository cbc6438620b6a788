"""What TensorBoard shows of a run. x is the number of images seen.

train/…       once a second: per task loss, accuracy, auc, skipped_steps, learning_rate, loss_scale; and
              images_per_second, input_wait_share, memory_gb
epoch/…       all columns of history.csv
augmented/…   per task: augmented training images with labels and keys
confusion/…   per task and epoch: the confusion matrix of the validation
mistakes/…    per task and epoch: the surest wrong answers, with labels and keys
flags         as text, and as hyperparameters of the HPARAMS page
"""

import math
import pathlib
import time

import keras
import numpy as np
import psutil
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from deepduel.augmentation import mixing
from deepduel.augmentation.transform import augment
from deepduel.decoding.split import Split
from deepduel.runs import event_files, pictures
from deepduel.runs.mistakes import Mistakes
from deepduel.training.trainer import Duel
from tfrecords_tools.format import records as record_format

_SECONDS_BETWEEN_POINTS = 1.0  # more would cost throughput and show nothing more
_SAMPLES = 12
_TABLE = 40  # classes; a larger confusion matrix would be no picture to read


class Board(keras.callbacks.Callback):
    """Writes `folder`; one writer for the whole session."""

    def __init__(self, duel: Duel, folder: pathlib.Path, *, images: int, batch_size: int, mistakes: Mistakes):
        super().__init__()
        self._duel = duel
        self._folder = folder
        self._batch_size = batch_size
        self._epoch_images = images
        self._mistakes = mistakes
        self._process = psutil.Process()
        self._writer = None

    def start(self, epoch: int, step: int) -> None:
        """Opens the files; what an earlier session wrote past this place is forgotten."""
        begun = epoch or step
        event_files.forget_after(self._folder, self._place(epoch, step) if begun else -1)
        self._writer = tf.summary.create_file_writer(str(self._folder))

    def describe(self, flags: str, split: Split, batches: tf.data.Dataset) -> None:
        """What is written once per run: the flags and augmented images."""
        values = _hyperparameters(flags)
        with self._writer.as_default(step=0):
            tf.summary.text("flags", "\n".join(f"    {line}" for line in flags.splitlines()))
            # TensorBoard finds no values for metrics that it collects by itself in the logdir's own folder.
            hparams.hparams_config(
                hparams=[hparams.HParam(name) for name in values],
                metrics=[
                    hparams.Metric(f"epoch/val_{task.name}_{measure}", display_name=f"{task.name} {measure}")
                    for task in self._duel.tasks
                    for measure in ("accuracy", "auc", "loss")
                ],
            )
            hparams.hparams(values)
        batch = next(iter(batches.take(1)))
        images, seeds = batch["images"][:_SAMPLES], batch["seeds"][:_SAMPLES]
        records = batch["records"][:_SAMPLES].numpy().tolist()
        keys = [record_format.key_text(split.key(record)) for record in records]
        with self._writer.as_default(step=0):
            for task in self._duel.tasks:
                shown = augment(images, seeds, task.augmentation, task.size)
                if task.mixing:
                    mix = mixing.plan(task.mixing, task.size, seeds)
                    shown = mixing.mix_images(shown, tf.gather(shown, mix.partner), mix.keep, mix.box)
                labels = batch["labels"][task.name][:_SAMPLES].numpy().tolist()
                names = [task.model.classes[label] if label >= 0 else "no label" for label in labels]
                captions = list(zip(names, keys, strict=True))
                pixels = np.clip(np.rint(shown.numpy()), 0, 255).astype(np.uint8)
                tf.summary.image(f"augmented/{task.name}", pictures.captioned(pixels, captions))

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._mark(self._duel.steps_done)

    def on_train_batch_end(self, batch, logs=None):
        elapsed = time.perf_counter() - self._clock
        if elapsed < _SECONDS_BETWEEN_POINTS:
            return
        waited = self._duel.input_seconds - self._waited
        place = self._place(self._epoch, self._duel.steps_done)
        points = {name: float(value) for name, value in logs.items()} | self._rates()
        points["images_per_second"] = (place - self._place(self._epoch, self._step)) / elapsed
        points["input_wait_share"] = waited / elapsed
        points["memory_gb"] = self._memory()
        self._write("train", points, place)
        self._mark(self._duel.steps_done)

    def on_epoch_end(self, epoch, logs=None):
        place = (epoch + 1) * self._epoch_images
        self._write("epoch", {name: float(value) for name, value in logs.items()}, place)
        with self._writer.as_default(step=place):
            for task in self._duel.running:
                about = self._duel.validated, task.name, task.model.classes
                if task.classes <= _TABLE:
                    tf.summary.image(f"confusion/{task.name}", self._mistakes.confusion(*about))
                worst = self._mistakes.worst(*about)
                if worst is not None:
                    tf.summary.image(f"mistakes/{task.name}", worst)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, group: str, points: dict[str, float], place: int) -> None:
        with self._writer.as_default(step=place):
            for name, value in points.items():
                if math.isfinite(value):  # an AUC of one class
                    tf.summary.scalar(f"{group}/{name}", value)
        self._writer.flush()  # a killed process leaves no gap

    def _rates(self) -> dict[str, float]:
        points = {}
        for task in self._duel.running:
            points[f"{task.name}_learning_rate"] = float(task.optimizer.learning_rate)
            if isinstance(task.optimizer, keras.optimizers.LossScaleOptimizer):
                points[f"{task.name}_loss_scale"] = float(task.optimizer.dynamic_scale)
        return points

    def _memory(self) -> float:
        """GB: the peak of the GPU's allocator where there is a GPU, else the process' resident memory."""
        if tf.config.list_logical_devices("GPU"):
            return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9
        return self._process.memory_info().rss / 1e9

    def _place(self, epoch: int, step: int) -> int:
        """Images seen."""
        return epoch * self._epoch_images + min(step * self._batch_size, self._epoch_images)

    def _mark(self, step: int) -> None:
        self._step = step
        self._clock = time.perf_counter()
        self._waited = self._duel.input_seconds


class Profile(keras.callbacks.Callback):
    """A trace of steps `first` to `last` of this session, from 1 on, for TensorBoard's profiler; 0: none."""

    def __init__(self, folder: pathlib.Path, first: int, last: int):
        super().__init__()
        self._folder = folder
        self._first, self._last = first, last
        self._done = 0
        self._running = False

    def on_train_batch_begin(self, batch, logs=None):
        if self._done + 1 == self._first:
            tf.profiler.experimental.start(str(self._folder))
            self._running = True

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        if self._done == self._last:
            self.finish()

    def finish(self) -> None:
        """Writes the trace, if training ends before its last step."""
        if self._running:
            tf.profiler.experimental.stop()
            self._running = False
            print(
                f"profiled steps {self._first} to {min(self._done, self._last)}; look at them with "
                f"pip install xprof and tensorboard --logdir={self._folder}",
                flush=True,
            )


def _hyperparameters(flags: str) -> dict[str, str | float]:
    """Values by flag; a flag that is given several times has them all, separated by spaces."""
    found: dict[str, str | float] = {}
    for line in flags.splitlines():
        if line.startswith("--") and "=" in line:
            name, _, value = line.removeprefix("--").partition("=")
            found[name] = f"{found[name]} {value}" if name in found else value
    for name, value in found.items():
        try:
            found[name] = float(value)
        except ValueError:
            continue
    return found
