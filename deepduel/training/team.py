"""Several processes that train together, each on its part of every batch, as if they were one.

Each reads its part of a batch (`Worker.part`) and computes gradients of it. Summed over the team, they are
those of the batch, so that every process makes the same update of the same weights:

    gather    small values, over TCP: what all must know before a step, and what worker 0 decides
    sum       tensors within a compiled step: gradients and logits, by TensorFlow's collective operations

A team of one process does nothing, and costs nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deepduel.reading.order import Worker

_PIECE = 1 << 18  # elements that are summed at once: about 1 MB, of which several are under way
# elements of a tensor that is summed as a whole: of about 1 MB, several are under way at once

_ROWS = ("labels", "weight", "records")  # what all workers know of every row of a batch


class Team:
    """A team of one.

    Attributes:
      worker: which part of every batch this process has.
    """

    worker = Worker()

    @property
    def count(self) -> int:
        """How many processes there are."""
        return self.worker.count

    @property
    def leads(self) -> bool:
        """Whether this is worker 0, which decides, writes and reports."""
        return self.worker.index == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all workers in the order of their numbers; all have to call it.

        Args:
          value: None, a bool, int, float, str, bytes, or lists and dicts of these.
        """
        return [value]

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The sums over all workers of tensors of the same shapes; to be called within a tf.function."""
        return list(tensors)

    def decided(self, decide: Callable[[], Any]) -> Any:
        """What `decide` returns in worker 0, in all workers: a value as for `gather`."""
        return self.gather(decide() if self.leads else None)[0]

    def expect_end(self) -> None:
        """Says that all have agreed to end: from now on it is no failure when another process does."""

    def with_whole_batch(self, batch: dict) -> dict:
        """Adds "whole" to this worker's part of a batch: labels, weight and records of all rows.

        A team of one returns the batch as it is: it is whole (see `whole`).
        """
        if self.count == 1:
            return batch
        rows = {name: batch[name] for name in _ROWS}
        columns = tf.nest.flatten(rows)
        parts = self.gather([column.numpy().tobytes() for column in columns])
        joined = [
            tf.constant(np.frombuffer(b"".join(pieces), column.dtype.as_numpy_dtype))
            for column, pieces in zip(columns, zip(*parts, strict=True), strict=True)
        ]
        return batch | {"whole": tf.nest.pack_sequence_as(rows, joined)}

    def spec_with_whole_batch(self, spec: dict) -> dict:
        """The specification of what `with_whole_batch` makes of batches of this one."""
        if self.count == 1:
            return spec
        rows = {name: spec[name] for name in _ROWS}
        return spec | {"whole": tf.nest.map_structure(lambda row: tf.TensorSpec((None,), row.dtype), rows)}

    def part(self, rows: Any) -> Any:
        """This worker's rows of a nest of tensors [B, …] of the whole batch."""
        if self.count == 1:
            return rows
        start, end = self.worker.part(tf.shape(tf.nest.flatten(rows)[0])[0])
        return tf.nest.map_structure(lambda row: row[start:end], rows)

    def joined(self, rows: Any, sums: Any, size: tf.Tensor) -> tuple[Any, Any]:
        """The rows of all workers joined, and their sums added up.

        Args:
          rows: nest of tensors [b, …] of this worker's part.
          sums: nest of tensors.
          size: of the whole batch, int32 scalar.
        """
        if self.count == 1:
            return rows, sums
        start, end = self.worker.part(size)
        padded = [
            tf.ensure_shape(
                tf.pad(row, [[start, size - end], *[[0, 0]] * (len(row.shape) - 1)]), (None, *row.shape[1:])
            )
            for row in tf.nest.flatten(rows)
        ]
        summed = self.sum([*padded, *tf.nest.flatten(sums)])
        return (
            tf.nest.pack_sequence_as(rows, summed[: len(padded)]),
            tf.nest.pack_sequence_as(sums, summed[len(padded) :]),
        )

    def share(self, variables: Sequence[keras.Variable]) -> None:
        """Gives the variables of all workers the values of worker 0."""
        for variable in variables if self.count > 1 else ():
            content = self.gather(variable.numpy().tobytes() if self.leads else None)[0]
            if not self.leads:
                dtype = tf.as_dtype(variable.dtype).as_numpy_dtype
                variable.assign(np.frombuffer(content, dtype).reshape(variable.shape))


def whole(batch: dict) -> dict:
    """The labels, weight and records of all rows of a batch, of which a worker may have a part."""
    return batch.get("whole", batch)


def in_pieces(
    tensors: Sequence[tf.Tensor], function: Callable[[list[tf.Tensor]], list[tf.Tensor]]
) -> list[tf.Tensor]:
    """Calls an elementwise function on tensors, of which those of one type are cut into pieces of one size.

    Many small tensors would cost a message each, and a large one could only be sent as a whole. Tensors of
    unknown shape stay as they are.
    """
    fixed: dict[tf.DType, list[int]] = {}
    results: list[tf.Tensor] = list(tensors)
    loose = [number for number, tensor in enumerate(tensors) if not tensor.shape.is_fully_defined()]
    for number in sorted(set(range(len(tensors))) - set(loose)):
        fixed.setdefault(tensors[number].dtype, []).append(number)
    joined = [_cut([tensors[number] for number in numbers]) for numbers in fixed.values()]
    computed = iter(function([*(tensors[number] for number in loose), *(p for cut in joined for p in cut)]))
    for number in loose:
        results[number] = tf.ensure_shape(next(computed), tensors[number].shape)
    for numbers, cut in zip(fixed.values(), joined, strict=True):
        flat = tf.concat([next(computed) for _ in cut], axis=0)
        parts = tf.split(flat, [tensors[number].shape.num_elements() for number in numbers])
        for number, part in zip(numbers, parts, strict=True):
            results[number] = tf.reshape(part, tensors[number].shape)
    return results


def _cut(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Tensors of one type as one, in pieces of about `_PIECE` elements."""
    flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
    size = flat.shape.num_elements()
    count = -(-size // _PIECE)
    bounds = [number * size // count for number in range(count + 1)]
    return tf.split(flat, [end - start for start, end in zip(bounds, bounds[1:], strict=False)])
