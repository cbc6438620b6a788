"""Batch numbers -> which records a batch holds, and the random state of each.

The order of an epoch is drawn when its first batch is asked for (see `order` and `sampling`).
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deepduel.decoding.split import Split
from deepduel.reading import order
from deepduel.reading.batch_groups import BatchRange
from deepduel.reading.options import ReadOptions
from deepduel.reading.sampling import Sampling


class BatchRecords(NamedTuple):
    """The records of one batch or of several, one behind the other: of each this worker's part.

    Attributes:
      records: numbers within the split, int64 [B].
      seeds: int32 [B, 2], see `order.image_seeds`.
      rounds: int64 [B], epochs before this one and draws before this one within it.
    """

    records: np.ndarray
    seeds: np.ndarray
    rounds: np.ndarray


class ShuffledPlan:
    """Endless batches of shuffled epochs.

    Callable: numbers of batches of one epoch, counted from 0 at the first one -> BatchRecords.
    """

    def __init__(self, split: Split, reading: ReadOptions, seed: int):
        self._records = len(split)
        self._batch_size = reading.batch_size
        self._worker = reading.worker
        self._classes = Sampling.parse(reading.sampling).classes(split)
        self._seed = seed
        self._steps = order.steps_per_epoch(len(split), reading.batch_size)
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._once = np.broadcast_to(np.int64(0), self._records)  # repeats when all are drawn once
        self._lock = threading.Lock()

    def __call__(self, numbers: Sequence[int]) -> BatchRecords:
        epoch = numbers[0] // self._steps
        records, repeats = self._epoch(epoch)
        parts = []
        for start in ((number - epoch * self._steps) * self._batch_size for number in numbers):
            begin, end = self._worker.part(min(self._batch_size, len(records) - start))
            parts.append(np.arange(start + begin, start + end))
        places = np.concatenate(parts)
        records, repeats = records[places], repeats[places]
        seeds = order.image_seeds(records, seed=self._seed, epoch=epoch, repeats=repeats)
        return BatchRecords(records, seeds, epoch + repeats)

    def numbers(self, position: order.Position) -> BatchRange:
        """The batch numbers from `position` on."""
        return BatchRange(position.epoch * self._steps + position.step, self._steps, endless=True)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(record numbers, how often each was drawn before in the epoch), [N] each."""
        with self._lock:  # batches of two epochs may be under way
            if epoch not in self._epochs:
                self._epochs = {
                    number: drawn for number, drawn in self._epochs.items() if number >= epoch - 1
                }
                self._epochs[epoch] = self._draw(epoch)
            return self._epochs[epoch]

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self._classes:
            return self._classes.epoch(self._records, seed=self._seed, epoch=epoch)
        return order.permutation(self._records, seed=self._seed, epoch=epoch), self._once


class FixedPlan:
    """A fixed list of records, in its order, `rows` to a batch.

    Callable: numbers of batches -> BatchRecords.
    """

    def __init__(
        self, records: np.ndarray, reading: ReadOptions, *, rows: int, seed: int = 0, epoch: int = 0
    ):
        self._records = records
        self._rows = rows
        self._part = reading.worker.part(rows)
        self._seed = seed
        self._epoch = epoch

    def __call__(self, numbers: Sequence[int]) -> BatchRecords:
        starts = np.array(numbers)[:, None] * self._rows
        places = (starts + np.arange(*self._part)).ravel()
        records = self._records[places[places < len(self._records)]]
        seeds = order.image_seeds(records, seed=self._seed, epoch=self._epoch)
        return BatchRecords(records, seeds, np.full(len(records), self._epoch))

    @property
    def rows(self) -> int:
        """Rows of this worker's part of a batch, those that pad the last batch included."""
        return self._part[1] - self._part[0]

    def numbers(self) -> BatchRange:
        steps = order.steps_per_epoch(len(self._records), self._rows)
        return BatchRange(0, steps, endless=False)
