"""Several batches from one call of Python, in the graph of a data set.

A call costs its hand-overs (tf.data's threads, the interpreter's lock, the decoding processes' wake-up)
whatever it brings. So it brings the batches of a group side by side, and tf.data gives them out as slices
of its memory, without a copy. The first group is a single batch: nobody waits longer for it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from deepduel.reading.host_calls import host_call

_GROUP_BYTES = 48 << 20
_MOST = 8  # batches; more hardly bring anything
_ALIGNED = 64  # bytes: where a slice starts elsewhere, TensorFlow copies it
_COPIED = 1 << 20  # bytes of a batch that may be copied


@dataclasses.dataclass(frozen=True)
class BatchRange:
    """The numbers of the batches to read, first … end - 1.

    Attributes:
      end: None: for ever.
      period: of so many batches from number 0 on, the last may have fewer rows than the others (an epoch).
    """

    first: int
    end: int | None
    period: int

    def groups(self, size: int) -> int | None:
        """How many groups of at most `size` batches there are; None: without end."""
        if self.end is None:
            return None
        if self.end - self.first < 2:
            return self.end - self.first
        return 2 + self._group_of(self.end - 1, size) - self._group_of(self.first + 1, size)

    def group(self, index: int, size: int) -> range:
        """The batches of one group, all with the same number of rows."""
        if index == 0:
            return range(self.first, self.first + 1)
        per_period = self._groups_of_a_period(size)
        period, at = divmod(self._group_of(self.first + 1, size) + index - 1, per_period)
        begin = min(at * size, self.period - 1)
        end = min(begin + size, self.period - 1) if at < per_period - 1 else self.period
        begin, end = period * self.period + begin, period * self.period + end
        return range(max(begin, self.first + 1), end if self.end is None else min(end, self.end))

    def _groups_of_a_period(self, size: int) -> int:
        return -(-(self.period - 1) // size) + 1  # the last batch by itself

    def _group_of(self, number: int, size: int) -> int:
        """Which group, counted from batch 0 on, a batch is in."""
        period, step = divmod(number, self.period)
        per_period = self._groups_of_a_period(size)
        return period * per_period + (step // size if step < self.period - 1 else per_period - 1)


def group_size(batch_bytes: int) -> int:
    """How many batches of so many bytes make a group."""
    if batch_bytes % _ALIGNED and batch_bytes > _COPIED:
        return 1
    return max(1, min(_GROUP_BYTES // max(batch_bytes, 1), _MOST))


def batches(
    numbers: BatchRange,
    load: Callable[[list[int]], Sequence[np.ndarray]],
    specs: Sequence[tf.TensorSpec],
    arrange: Callable,
    *,
    size: int,
    parallel: int,
) -> tf.data.Dataset:
    """The batches, in order.

    Args:
      load: batch numbers -> their rows, one batch behind the other, an array for each part of a batch.
      specs: of one batch's parts; the number of rows may be None.
      arrange: these parts -> what the data set gives, a dict say.
      size: batches of a group.
      parallel: calls of `load` under way at once.
    """
    groups = numbers.groups(size)

    def load_group(index):
        group = numbers.group(int(index), size)
        parts = load(list(group))
        return [part.reshape(len(group), -1, *part.shape[1:]) for part in parts]

    @tf.autograph.experimental.do_not_convert  # nothing here needs it
    def group(index):
        parts = host_call(load_group, [index], [spec.dtype for spec in specs])
        for part, spec in zip(parts, specs, strict=True):
            part.set_shape((None, *spec.shape))
        return (arrange(*parts),)

    slices = tf.autograph.experimental.do_not_convert(tf.data.Dataset.from_tensor_slices)

    indices = tf.data.Dataset.range(np.iinfo(np.int64).max if groups is None else groups)
    found = indices.map(group, num_parallel_calls=parallel, deterministic=True).flat_map(slices)
    count = tf.data.INFINITE_CARDINALITY if numbers.end is None else numbers.end - numbers.first
    return found.apply(tf.data.experimental.assert_cardinality(count))
