"""The random-access reader: batch numbers -> batches, each record read at its known place."""

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deepduel import batch_plan, faults, order
from deepduel.batch import as_batch, options
from deepduel.cached_decode import CachedDecoder
from deepduel.decode import BatchDecoder
from deepduel.host_calls import host_call
from deepduel.pixel_cache import open_cache
from deepduel.reading import Reading
from deepduel.shards import Split
from tfrecords_tools import records as record_format

LARGE_BATCH_BYTES = 64 << 20  # from here on, one batch is decoded at a time
_SPARE = 1  # batches under way beyond two, where nobody has limited the threads to fewer than the cores


def train(split: Split, reading: Reading, position: order.Position) -> tf.data.Dataset:
    """Endless training batches from `position` on."""
    training = batch_plan.Training(split, reading, position.seed)
    return _batches(training.numbers(position), split, reading, training, rows=None, random_crops=True)


def evaluate(split: Split, reading: Reading, *, rows: int) -> tf.data.Dataset:
    """Every record once, in order, in batches of `rows` (of all workers together)."""
    return listed(split, reading, batch_plan.Listed(np.arange(len(split)), reading, rows=rows))


def listed(
    split: Split, reading: Reading, records: batch_plan.Listed, *, random_crops: bool = False
) -> tf.data.Dataset:
    """Given records in their order, in batches of one shape; `random_crops` as in training."""
    rows = records.rows
    return _batches(records.numbers(), split, reading, records, rows=rows, random_crops=random_crops)


def _batches(
    numbers: tf.data.Dataset,
    split: Split,
    reading: Reading,
    take: Callable,
    *,
    rows: int | None,
    random_crops: bool = False,
) -> tf.data.Dataset:
    """Batch numbers -> batches; `take` gives the records and seeds of a batch."""
    decoding = reading.decoding(split)
    # Batch numbers, not images, travel through tf.data. Two batches under way keep all cores busy
    # while one ends, and a further one while tf.data hands an ended one on; of large ones a single
    # one is enough, since each costs its full memory. Copies out of a cache are faster between fewer
    # buffers, of which the processor's own cache holds more. The map works ahead by itself: a prefetch
    # behind it would hold one more batch, and hand each on once more.
    cores = len(os.sched_getaffinity(0))
    threads = reading.threads or cores
    batch_bytes = reading.batch_size * decoding.size[0] * decoding.size[1] * 3
    spare = _SPARE if threads >= cores and reading.cache == "none" else 0
    parallel = 1 if batch_bytes >= LARGE_BATCH_BYTES else min(2, threads) + spare
    decode = BatchDecoder(split, decoding, threads=threads, on_error=reading.on_error)
    cache = open_cache(reading.cache, split, decoding)
    if cache:
        decode = CachedDecoder(split, cache, decode, decoding.size, threads=threads, callers=parallel)
    axes = list(split.manifest.axes)

    def load(number):
        records, seeds, _ = take(number)
        pad = (rows or len(records)) - len(records)
        labels = [split.labels[axis][records] for axis in axes]
        images = decode(records, rows=len(records) + pad, seeds=seeds if random_crops else None)
        if pad:
            records = np.pad(records, (0, pad), constant_values=-1)
            seeds = np.pad(seeds, ((0, pad), (0, 0)))
            labels = [np.pad(column, (0, pad)) for column in labels]
        weight = faults.weights(split, records)
        for column in labels:
            column[weight == 0] = record_format.NO_LABEL
        return images, seeds, records, weight, *labels

    @tf.autograph.experimental.do_not_convert  # nothing here needs it
    def batch(number):
        types = tf.uint8, tf.int32, tf.int64, tf.float32, *[tf.int32] * len(axes)
        images, seeds, records, weight, *labels = host_call(load, [number], types)
        images.set_shape((rows, *decoding.size, 3))
        seeds.set_shape((rows, 2))
        for column in (records, weight, *labels):
            column.set_shape((rows,))
        return as_batch(split, images, labels, seeds, records, weight)

    batches = numbers.map(batch, num_parallel_calls=parallel, deterministic=True)
    return batches.with_options(options())
