"""Several batches from one call of Python, in the graph of a data set.

A call costs its hand-overs (tf.data's threads, the interpreter's lock, the decoding processes' wake-up)
however little it brings. So one call brings the batches of a group side by side, and tf.data yields them as
slices of its memory, without a copy. The first group is a single batch, so that nobody waits longer for it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepduel.reading.host_calls import HostFunction

_DECODED = 48 << 20, 8  # bytes and batches of a group at most; more hardly bring anything
_COPIED = 96 << 20, 24  # where pixels are only copied, calls weigh more
_ALIGNED = 64  # bytes: where a slice starts elsewhere, TensorFlow copies it
_MISALIGNED = 1 << 20  # bytes of a batch that may be copied for it


@dataclasses.dataclass(frozen=True)
class BatchRange:
    """The numbers of the batches to read, from `first` on.

    Attributes:
      first: number of the first batch, counted from the beginning of epoch 0.
      epoch: batches of an epoch, of which the last may have fewer rows than the others.
      endless: whether to go on for ever; else the epoch of `first` is the last.
    """

    first: int
    epoch: int
    endless: bool

    @property
    def count(self) -> int | None:
        """How many batches there are; None: without end."""
        if self.endless:
            return None
        return self.epoch - self.first % self.epoch if self.epoch else 0

    def groups(self, size: int, later: int | None = None) -> "BatchGroups":
        """The batches in groups of at most `size`; an epoch's last batch is a group of its own.

        Args:
          later: the size from the second epoch on, where it differs.
        """
        if not self.epoch:
            return BatchGroups(np.zeros(1, np.int64), np.zeros(1, np.int64), endless=False)
        epoch, later_epoch = (
            np.array([*range(0, self.epoch - 1, most), self.epoch - 1, self.epoch], np.int64)
            for most in (size, later or size)
        )
        start = self.first // self.epoch * self.epoch
        opening = [self.first, self.first + 1, *(epoch[start + epoch > self.first + 1] + start)]
        return BatchGroups(np.array(opening, np.int64), later_epoch, endless=self.endless)


@dataclasses.dataclass(frozen=True)
class BatchGroups:
    """Groups of batches, each from one edge to the next.

    Attributes:
      opening: edges of the groups up to the end of the first epoch, as batch numbers.
      epoch: edges of the groups of every later epoch, counted from the epoch's first batch.
      endless: whether there are later epochs.
    """

    opening: np.ndarray
    epoch: np.ndarray
    endless: bool

    @property
    def count(self) -> int | None:
        """How many groups there are; None: without end."""
        return None if self.endless else len(self.opening) - 1

    def __getitem__(self, index: int) -> range:
        """The numbers of the batches of a group, all with the same number of rows."""
        later = index - (len(self.opening) - 1)
        if later < 0:
            return range(int(self.opening[index]), int(self.opening[index + 1]))
        epochs, at = divmod(later, len(self.epoch) - 1)
        start = int(self.opening[-1]) + epochs * int(self.epoch[-1])
        return range(start + int(self.epoch[at]), start + int(self.epoch[at + 1]))


def group_size(batch_bytes: int, *, cached: bool = False) -> int:
    """How many batches of so many bytes make a group; `cached`: their pixels come from a cache."""
    if batch_bytes % _ALIGNED and batch_bytes > _MISALIGNED:
        return 1
    most_bytes, most = _COPIED if cached else _DECODED
    return max(1, min(most_bytes // max(batch_bytes, 1), most))


def batches(
    numbers: BatchRange,
    load: Callable[[list[int]], Sequence[np.ndarray]],
    specs: Sequence[tf.TensorSpec],
    arrange: Callable[..., Any],
    *,
    size: int,
    later: int | None = None,
    parallel: int,
) -> tf.data.Dataset:
    """The batches, in order.

    Args:
      load: batch numbers -> their rows, one batch behind the other, an array for each part of a batch.
      specs: of one batch's parts; the number of rows may be None.
      arrange: these parts -> what the data set yields, a dict for example.
      size: batches of a group.
      later: the same from the second epoch on, where it differs.
      parallel: calls of `load` under way at once.
    """
    groups = numbers.groups(size, later)

    def load_group(index: np.ndarray) -> list[np.ndarray]:
        group = groups[int(index)]
        parts = load(list(group))
        return [part.reshape(len(group), -1, *part.shape[1:]) for part in parts]

    load_in_graph = HostFunction(load_group)

    @tf.autograph.experimental.do_not_convert  # nothing in it needs converting
    def group(index: tf.Tensor) -> tuple:
        parts = load_in_graph([index], [spec.dtype for spec in specs])
        for part, spec in zip(parts, specs, strict=True):
            part.set_shape((None, *spec.shape))
        return (arrange(*parts),)

    slices = tf.autograph.experimental.do_not_convert(tf.data.Dataset.from_tensor_slices)

    indices = tf.data.Dataset.range(np.iinfo(np.int64).max if groups.count is None else groups.count)
    loaded = indices.map(group, num_parallel_calls=parallel, deterministic=True)
    count = tf.data.INFINITE_CARDINALITY if numbers.count is None else numbers.count
    return loaded.flat_map(slices).apply(tf.data.experimental.assert_cardinality(count))
