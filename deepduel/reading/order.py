"""(seed, epoch) -> the order in which an epoch visits its records.

The order is a pure function of (seed, epoch) and the number of records: the same on every
machine, for any reader, batch size and number of threads. An epoch is a permutation, cut
into batches; the last batch holds what is left over.
"""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of several processes that train on the same batches, each on its part of every batch.

    Joined in the order of `index`, the parts are the batch that a single process would read, for any `count`.

    Attributes:
      index: number of this process, 0 <= index < count.
      count: number of processes.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"a worker's index must be from 0 to count - 1, got {self.index} of {self.count}"
            )

    def part(self, rows: Any) -> tuple[Any, Any]:
        """(start, end) of its part of a batch of `rows`, an int or an integer tensor."""
        return rows * self.index // self.count, rows * (self.index + 1) // self.count


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a run has got: the complete state of the input pipeline.

    Attributes:
      seed: random seed of the run, 0 <= seed < 2**63.
      epoch: number of the epoch, counted from 0.
      step: number of the next batch of that epoch, counted from 0.
    """

    seed: int = 0
    epoch: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < 2**63:
                raise ValueError(f"{field.name} must be from 0 to 2**63 - 1, got {value}")


def steps_per_epoch(records: int, batch_size: int) -> int:
    """How many batches an epoch has, the last, partial one included."""
    return math.ceil(records / batch_size)


def permutation(records: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: [records] int64, each record number once.

    Sorts one 64-bit random key per record. The keys are the raw stream of NumPy's Philox
    bit generator, which NumPy keeps fixed for ever (its `Generator.permutation` is not).
    """
    keys = np.random.Philox(key=[seed, epoch]).random_raw(records)
    return np.argsort(keys, kind="stable")


def epoch_word(seed: int, epoch: int) -> int:
    """(seed, epoch) in 31 bits: differs from epoch to epoch of a seed, and between nearby seeds.

    Plain 64-bit arithmetic, so that it is the same in Python, NumPy and a TensorFlow graph
    (where `epoch` may be an int64 tensor). The multipliers are odd: for one seed, 2**31 epochs
    give 2**31 words. Mixing the bits is the random generator's work.
    """
    return (seed % 2**31 * 0x9E3779B1 + epoch * 0x85EBCA77) % 2**31


def image_seeds(records: np.ndarray, *, seed: int, epoch: int, repeats: np.ndarray | int = 0) -> np.ndarray:
    """The random state of each image in one epoch: [B, 2] int32, (epoch_word, record number).

    An image's augmentation therefore does not depend on which batch, worker or reader it
    came through. `repeats` says how often a record was drawn before in the epoch, so that each
    draw has a state of its own.
    """
    seeds = np.empty((len(records), 2), np.int32)
    seeds[:, 0] = (epoch_word(seed, epoch) + repeats * 0xC2B2AE35) % 2**31
    seeds[:, 1] = records % 2**31
    return seeds
