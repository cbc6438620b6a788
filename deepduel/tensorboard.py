"""What TensorBoard shows of a run: scalars per step and epoch, augmented samples, the flags.

Step scalars (`train/…`): loss and accuracy per task, images/s, share of time spent waiting for
input. Epoch scalars (`epoch/…`): all columns of history.csv. x is the number of images seen.
"""

import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from deepduel import mixing
from deepduel.augment import augment
from deepduel.training import Duel

_SECONDS_BETWEEN_POINTS = 1.0  # more would cost throughput and show nothing more
_SAMPLES = 16


class Board(keras.callbacks.Callback):
    """Writes `folder`; one writer for the whole run."""

    def __init__(self, duel: Duel, folder: pathlib.Path, *, images: int, batch_size: int):
        super().__init__()
        self._duel = duel
        self._batch_size = batch_size
        self._writer = tf.summary.create_file_writer(str(folder))
        self._epoch_images = images

    def start(self, flags: str, batches: tf.data.Dataset) -> None:
        """What is written once per run: the flags and a grid of augmented images per task."""
        with self._writer.as_default():
            tf.summary.text("flags", "\n".join(f"    {line}" for line in flags.splitlines()), step=0)
        batch = next(iter(batches.take(1)))
        images, seeds = batch["images"][:_SAMPLES], batch["seeds"][:_SAMPLES]
        with self._writer.as_default():
            for task in self._duel.tasks:
                shown = augment(images, seeds, task.augmentation, task.size)
                if task.mixing:
                    mix = mixing.plan(task.mixing, task.size, seeds)
                    shown = mixing.mix_images(shown, tf.gather(shown, mix.partner), mix.keep, mix.box)
                tf.summary.image(f"augmented/{task.name}", _grid(shown.numpy()), step=0)

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = epoch * self._epoch_images
        self._mark(self._duel.steps_done * self._batch_size)

    def on_train_batch_end(self, batch, logs=None):
        done = min(self._duel.steps_done * self._batch_size, self._epoch_images)
        elapsed = time.perf_counter() - self._clock
        if elapsed < _SECONDS_BETWEEN_POINTS:
            return
        waited = self._duel.input_seconds - self._waited
        with self._writer.as_default(step=self._seen + done):
            for name, value in logs.items():
                tf.summary.scalar(f"train/{name}", float(value))
            tf.summary.scalar("train/images_per_second", (done - self._done) / elapsed)
            tf.summary.scalar("train/input_wait_share", waited / elapsed)
        self._mark(done)

    def on_epoch_end(self, epoch, logs=None):
        with self._writer.as_default(step=(epoch + 1) * self._epoch_images):
            for name, value in logs.items():
                tf.summary.scalar(f"epoch/{name}", float(value))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _mark(self, done: int) -> None:
        self._done = done
        self._clock = time.perf_counter()
        self._waited = self._duel.input_seconds


def _grid(images: np.ndarray) -> np.ndarray:
    """[N, S, S, 3] floats 0..255 -> one picture [1, rows * S, columns * S, 3] uint8."""
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    size = images.shape[1]
    canvas = np.zeros((rows * columns, size, size, 3), np.uint8)
    canvas[: len(images)] = np.clip(np.rint(images), 0, 255)
    picture = canvas.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4)
    return picture.reshape(1, rows * size, columns * size, 3)
