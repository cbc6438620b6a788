"""One pass over a batch in micro-batches: the memory it takes does not grow with the batch."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def in_micro_batches(
    function: Callable[..., Any], *inputs: Any, rows: Any, sums: Any = (), micro_batch: int
) -> tuple[Any, Any]:
    """Calls `function` on one micro-batch after the other, joins its rows and adds up its sums.

    The micro-batches are as even as possible (65 images in micro-batches of 32 are 21, 22 and 22), so that
    none has batch-norm statistics of a few images. Each is padded with zeros to `micro_batch` rows, so that
    `function` is compiled once; the rows of the padding are cut off again.

    Args:
      function: (*inputs of a micro-batch, filled) -> (rows, sums). `filled` is the number of real rows, a
        scalar; rows are a nest of tensors [micro_batch, …], sums a nest of tensors.
      inputs: nests of tensors [B, …]; B may be 0.
      rows: the nest of tf.TensorSpec of the rows, for one image.
      sums: the nest of tf.TensorSpec of the sums.
      micro_batch: largest number of images per micro-batch.

    Returns:
      (rows [B, …], sums) of the whole batch.
    """
    count = tf.shape(tf.nest.flatten(inputs)[0])[0]
    steps = tf.maximum((count + micro_batch - 1) // micro_batch, 1)

    def body(number: tf.Tensor, arrays: Any, totals: Any) -> tuple[tf.Tensor, Any, Any]:
        start, end = number * count // steps, (number + 1) * count // steps
        filled = end - start

        def part(batch: tf.Tensor) -> tf.Tensor:
            padding = [[0, micro_batch - filled], *[[0, 0]] * (len(batch.shape) - 1)]
            return tf.ensure_shape(tf.pad(batch[start:end], padding), (micro_batch, *batch.shape[1:]))

        part_rows, part_sums = function(*tf.nest.map_structure(part, inputs), filled)
        part_rows = tf.nest.flatten(part_rows)
        arrays = [array.write(number, row[:filled]) for array, row in zip(arrays, part_rows, strict=True)]
        totals = [a + b for a, b in zip(totals, tf.nest.flatten(part_sums), strict=True)]
        return number + 1, arrays, totals

    arrays = [
        tf.TensorArray(spec.dtype, steps, element_shape=(None, *spec.shape), infer_shape=False)
        for spec in tf.nest.flatten(rows)
    ]
    totals = [tf.zeros(spec.shape, spec.dtype) for spec in tf.nest.flatten(sums)]
    _, arrays, totals = tf.while_loop(
        lambda number, *_: number < steps, body, (0, arrays, totals), parallel_iterations=1
    )
    joined = [
        tf.ensure_shape(array.concat(), (None, *spec.shape))
        for array, spec in zip(arrays, tf.nest.flatten(rows), strict=True)
    ]
    return tf.nest.pack_sequence_as(rows, joined), tf.nest.pack_sequence_as(sums, totals)
