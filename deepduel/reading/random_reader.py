"""The random-access reader: batch numbers -> batches, each record read at its known place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.cached_decoder import CachedDecoder
from deepduel.decoding.pixel_cache import open_cache
from deepduel.decoding.split import Split
from deepduel.reading import batch_groups, batch_plan, order
from deepduel.reading.batch import as_batch, options
from deepduel.reading.options import ReadOptions
from tfrecords_tools import host_cpus
from tfrecords_tools.format import records as record_format

LARGE_BATCH_BYTES = 64 << 20  # from here on, one batch is decoded at a time

_UNDER_WAY = 2  # groups of batches, of smaller ones


def train(split: Split, reading: ReadOptions, position: order.Position) -> tf.data.Dataset:
    """Endless training batches from `position` on."""
    training = batch_plan.ShuffledPlan(split, reading, position.seed)
    return _batches(training.numbers(position), split, reading, training, rows=None, random_crops=True)


def evaluate(split: Split, reading: ReadOptions, *, rows: int) -> tf.data.Dataset:
    """Every record once, in order, in batches of `rows` (of all workers together)."""
    return listed(split, reading, batch_plan.FixedPlan(np.arange(len(split)), reading, rows=rows))


def listed(
    split: Split, reading: ReadOptions, records: batch_plan.FixedPlan, *, random_crops: bool = False
) -> tf.data.Dataset:
    """The records of a plan in their order, in batches of one shape; `random_crops` as in training."""
    rows = records.rows
    return _batches(records.numbers(), split, reading, records, rows=rows, random_crops=random_crops)


def batches_held(batch_bytes: int, *, cached: bool) -> int:
    """How many batches of so many bytes are in memory: being decoded or copied, ready, and in use."""
    return (_under_way(batch_bytes) + 2) * batch_groups.group_size(batch_bytes, cached=cached)


def _under_way(batch_bytes: int) -> int:
    return 1 if batch_bytes >= LARGE_BATCH_BYTES else _UNDER_WAY


def _batches(
    numbers: batch_groups.BatchRange,
    split: Split,
    reading: ReadOptions,
    plan: Callable[[list[int]], batch_plan.BatchRecords],
    *,
    rows: int | None,
    random_crops: bool = False,
) -> tf.data.Dataset:
    """Batch numbers -> batches; `plan` gives the records and seeds of batches."""
    decoding = reading.decoding(split)
    split.keep_remote(reading.remote_cache)
    # Batch numbers, not images, travel through tf.data. Two groups of batches under way keep all cores
    # busy while one ends; of large ones a single one is enough, since each costs its full memory. The
    # map works ahead by itself: a prefetch behind it would hold one more batch, and hand each on once more.
    threads = reading.threads or host_cpus.available()
    begin, end = reading.worker.part(reading.batch_size)
    batch_bytes = (rows or end - begin) * decoding.size[0] * decoding.size[1] * 3
    parallel = min(_under_way(batch_bytes), threads)
    decoder = BatchDecoder(split, decoding, threads=threads, on_error=reading.on_error)
    decode: BatchDecoder | CachedDecoder = decoder
    cache = open_cache(reading.cache, split, decoding)
    own_threads = 0
    if cache:
        # Each call copies on a thread of TensorFlow. One more hands the batches on meanwhile.
        own_threads = threads + 1
        decode = CachedDecoder(split, cache, decoder, decoding.size, threads=threads, callers=parallel)
    axes = list(split.manifest.axes)

    def load(numbers: list[int]) -> tuple[np.ndarray, ...]:
        records, seeds, _ = plan(numbers)
        pad = rows * len(numbers) - len(records) if rows else 0
        labels = [split.labels[axis][records] for axis in axes]
        images = decode(records, rows=len(records) + pad, seeds=seeds if random_crops else None)
        if pad:
            records = np.pad(records, (0, pad), constant_values=-1)
            seeds = np.pad(seeds, ((0, pad), (0, 0)))
            labels = [np.pad(column, (0, pad)) for column in labels]
        weight = bad_records.weights(split, records)
        for column in labels:
            column[weight == 0] = record_format.NO_LABEL
        return images, seeds, records, weight, *labels

    specs = [
        tf.TensorSpec((rows, *decoding.size, 3), tf.uint8),
        tf.TensorSpec((rows, 2), tf.int32),
        tf.TensorSpec((rows,), tf.int64),
        tf.TensorSpec((rows,), tf.float32),
        *[tf.TensorSpec((rows,), tf.int32)] * len(axes),
    ]

    def arrange(
        images: tf.Tensor, seeds: tf.Tensor, records: tf.Tensor, weight: tf.Tensor, *labels: tf.Tensor
    ) -> dict[str, Any]:
        return as_batch(split, images, labels, seeds, records, weight)

    size = batch_groups.group_size(batch_bytes)
    # The first epoch decodes, and whoever stops it waits for the calls under way.
    later = batch_groups.group_size(batch_bytes, cached=cache is not None)
    batches = batch_groups.batches(numbers, load, specs, arrange, size=size, later=later, parallel=parallel)
    return batches.with_options(options(own_threads=own_threads))
