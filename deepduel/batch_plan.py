"""Batch numbers -> which records a batch holds, and the random state of each.

The order of an epoch is drawn when its first batch is asked for (see `order` and `sampling`).
"""

import threading
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deepduel import order
from deepduel.reading import Reading
from deepduel.sampling import Sampling
from deepduel.shards import Split


class Rows(NamedTuple):
    """One batch, or this worker's part of it.

    Attributes:
      records: numbers within the split, int64 [B].
      seeds: int32 [B, 2], see `order.image_seeds`.
      rounds: int64 [B], epochs before this one and draws before this one within it.
    """

    records: np.ndarray
    seeds: np.ndarray
    rounds: np.ndarray


class Training:
    """Endless batches of shuffled epochs. Callable: batch number, from 0 at the first epoch -> Rows."""

    def __init__(self, split: Split, reading: Reading, seed: int):
        self._records = len(split)
        self._batch_size = reading.batch_size
        self._worker = reading.worker
        self._classes = Sampling.parse(reading.sampling).classes(split)
        self._seed = seed
        self._steps = order.steps_per_epoch(len(split), reading.batch_size)
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._once = np.broadcast_to(np.int64(0), self._records)  # repeats when all are drawn once
        self._lock = threading.Lock()

    def __call__(self, number: int) -> Rows:
        epoch, step = divmod(int(number), self._steps)
        records, repeats = self._epoch(epoch)
        start = step * self._batch_size
        begin, end = self._worker.part(min(self._batch_size, len(records) - start))
        part = slice(start + begin, start + end)
        seeds = order.image_seeds(records[part], seed=self._seed, epoch=epoch, repeats=repeats[part])
        return Rows(records[part], seeds, epoch + repeats[part])

    def numbers(self, position: order.Position) -> tf.data.Dataset:
        """The batch numbers from `position` on."""
        return tf.data.Dataset.range(position.epoch * self._steps + position.step, np.iinfo(np.int64).max)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(record numbers, how often each was drawn before in the epoch), [N] each."""
        with self._lock:  # batches of two epochs may be under way
            if epoch not in self._epochs:
                self._epochs = {number: kept for number, kept in self._epochs.items() if number >= epoch - 1}
                self._epochs[epoch] = self._draw(epoch)
            return self._epochs[epoch]

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self._classes:
            return self._classes.epoch(self._records, seed=self._seed, epoch=epoch)
        return order.permutation(self._records, seed=self._seed, epoch=epoch), self._once


class Listed:
    """Given records, in their order, `rows` to a batch. Callable: batch number -> Rows."""

    def __init__(self, records: np.ndarray, reading: Reading, *, rows: int, seed: int = 0, epoch: int = 0):
        self._records = records
        self._rows = rows
        self._part = reading.worker.part(rows)
        self._seed = seed
        self._epoch = epoch

    def __call__(self, number: int) -> Rows:
        first, last = (min(int(number) * self._rows + at, len(self._records)) for at in self._part)
        records = self._records[first:last]
        seeds = order.image_seeds(records, seed=self._seed, epoch=self._epoch)
        return Rows(records, seeds, np.full(len(records), self._epoch))

    @property
    def rows(self) -> int:
        """Of this worker's part of a batch, the padding of the last one included."""
        return self._part[1] - self._part[0]

    def numbers(self) -> tf.data.Dataset:
        return tf.data.Dataset.range(order.steps_per_epoch(len(self._records), self._rows))
