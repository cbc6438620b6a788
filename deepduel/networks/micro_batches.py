"""One pass over a batch in parts of bounded size: its memory is that of a part, whatever the batch."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def in_micro_batches(
    function: Callable[..., Any], *inputs: Any, rows: Any, sums: Any = (), micro_batch: int
) -> tuple[Any, Any]:
    """`function` over parts of the inputs, one after the other; its rows joined, its sums added up.

    The parts are as even as can be (65 images in parts of 32 are 21, 22 and 22), so that none has
    statistics of a handful of images. Each is filled up with zeros to `micro_batch` rows, so
    that whatever `function` compiles is compiled once; the results of that filling are cut off again.

    Args:
      function: (part, filled) -> (rows, sums): `filled` is the number of real rows, a scalar; the rows it
        returns are a nest of tensors [micro_batch, …], the sums a nest of tensors.
      inputs: its first arguments, each a nest of tensors [B, …], B may be 0.
      rows: the nest of tf.TensorSpec of its rows, for one image.
      sums: the nest of tf.TensorSpec of its sums.

    Returns:
      (rows [B, …], sums) of the whole batch.
    """
    count = tf.shape(tf.nest.flatten(inputs)[0])[0]
    steps = tf.maximum((count + micro_batch - 1) // micro_batch, 1)

    def body(number: tf.Tensor, arrays: Any, totals: Any) -> tuple[tf.Tensor, Any, Any]:
        start, end = number * count // steps, (number + 1) * count // steps
        filled = end - start

        def part(whole: tf.Tensor) -> tf.Tensor:
            some = whole[start:end]
            some = tf.pad(some, [[0, micro_batch - filled], *[[0, 0]] * (len(whole.shape) - 1)])
            return tf.ensure_shape(some, (micro_batch, *whole.shape[1:]))

        found, added = function(*tf.nest.map_structure(part, inputs), filled)
        found = tf.nest.flatten(found)
        arrays = [array.write(number, row[:filled]) for array, row in zip(arrays, found, strict=True)]
        totals = [a + b for a, b in zip(totals, tf.nest.flatten(added), strict=True)]
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
