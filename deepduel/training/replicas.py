"""One function on all devices of a strategy, each with its share of the rows of a batch."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def run_on_all(strategy: tf.distribute.Strategy, function: Callable, batch: Any) -> tuple[Any, Any]:
    """Calls `function` on every device with that device's rows; joins its results and adds up its sums.

    Args:
      function: rows -> (results, sums): nests of tensors [b, …] and of tensors to add up.
      batch: nest of tensors [B, …], cut into as many parts of equal size (give or take a row) as there are
        devices.

    Returns:
      (results [B, …], sums).
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return function(batch)

    def on_one_device() -> tuple[Any, Any]:
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        size = tf.shape(tf.nest.flatten(batch)[0])[0]
        start, end = size * index // count, size * (index + 1) // count
        with tf.device("CPU:0"):  # so that not the entire batch is copied to every device
            rows = tf.nest.map_structure(lambda row: row[start:end], batch)
        return function(rows)

    results, sums = strategy.run(on_one_device)
    joined = tf.nest.map_structure(
        lambda parts: tf.concat(strategy.experimental_local_results(parts), axis=0), results
    )
    return joined, tf.nest.map_structure(
        lambda parts: strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None), sums
    )
