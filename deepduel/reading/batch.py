"""What a batch is.

A batch is a dict:

    images   uint8   [B, H, W, 3]   upright RGB, 0..255
    labels   {axis: int32 [B]}      -1 where an image has none
    seeds    int32   [B, 2]         random state of each image for its augmentation
    records  int64   [B]            record numbers within the split; -1 for padding
    weight   float32 [B]            1; 0 for the padding that fills up the last evaluation batch, and
                                    for records left out because they do not decode
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepduel.decoding.split import Split


def as_batch(
    split: Split,
    images: tf.Tensor,
    labels: Sequence[tf.Tensor],
    seeds: tf.Tensor,
    records: tf.Tensor,
    weight: tf.Tensor,
) -> dict[str, Any]:
    """The dict above, from one column of labels [B] per axis and the other parts."""
    return {
        "images": images,
        "labels": dict(zip(split.manifest.axes, labels, strict=True)),
        "seeds": seeds,
        "records": records,
        "weight": weight,
    }


def batch_arrays(batches: tf.data.Dataset) -> Iterator[list[np.ndarray]]:
    """Batches as arrays: images, seeds, records, weight, and the labels of each axis."""
    for batch in batches:
        names = "images", "seeds", "records", "weight"
        yield [array.numpy() for array in (*(batch[name] for name in names), *batch["labels"].values())]


def options(*, own_threads: int = 0) -> tf.data.Options:
    """The options of every data set: in order, not divided by distribution strategies, and not autotuned.

    Args:
      own_threads: threads that run this data set's functions; 0 for those that run the operations of all
        graphs.
    """
    options = tf.data.Options()
    if own_threads:
        options.threading.private_threadpool_size = own_threads
    options.deterministic = True
    # There is nothing to tune, and an iterator that is deleted waits for the tuning thread. That may miss its
    # cancellation, and sleep on for as long as the iterator has lived: its callback runs before `IsCancelled`
    # is true (TensorFlow 2.21: model.cc, `OptimizeLoop`; cancellation.cc, `StartCancel`).
    options.autotune.enabled = False
    # The batches are final: there is nothing for the auto-sharding of a strategy to divide.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # A prefetch that TensorFlow adds by itself would keep more batches, and pass each on once more.
    options.experimental_optimization.inject_prefetch = False
    return options
