"""The sequential reader: shards streamed from start to end, in TensorFlow's own operations only.

For cold disks and network file systems, where random reads are slow. Same batches as the
random-access reader, in an order that is shuffled by shards and by windows instead of globally.
"""

import os

import numpy as np
import tensorflow as tf

from deepduel import faults, order
from deepduel.fitting_graph import decode_fitted
from deepduel.reading import Reading, as_batch, options
from deepduel.shards import Split
from tfrecords_tools import records as record_format

_WINDOW = 8192  # encoded images that are shuffled at a time
_INTERLEAVE = 8  # shards that are read side by side
_BLOCK = 16  # records that are taken from each in turn


def train(split: Split, reading: Reading, position: order.Position) -> tf.data.Dataset:
    """Endless training batches from `position` on."""

    def epoch(number):
        shards = _shuffled_indices(len(split.shards), position.seed, number, salt=-1)
        records = _windowed_shuffle(_stream(split, shards), position.seed, number)
        encoded = records.batch(reading.batch_size)
        encoded = encoded.skip(tf.where(number == position.epoch, np.int64(position.step), np.int64(0)))
        encoded = encoded.map(lambda *batch: _part(reading, *batch))
        return _decoded(encoded, split, reading, seed=position.seed, epoch=number, random_crops=True)

    epochs = tf.data.Dataset.range(position.epoch, np.iinfo(np.int64).max)
    return _finish(epochs.flat_map(epoch), split, reading)


def evaluate(split: Split, reading: Reading, *, rows: int) -> tf.data.Dataset:
    """Every record once, in order, in batches of `rows`."""
    records = _stream(split, tf.range(len(split.shards), dtype=tf.int64), interleave=1)
    encoded = records.batch(rows).map(lambda *batch: _part(reading, *batch, rows=rows))
    batches = _decoded(encoded, split, reading, seed=0, epoch=0)
    begin, end = reading.worker.part(rows)
    rows = end - begin

    def pad(images, labels, seeds, records, weight):
        missing = rows - tf.shape(images)[0]
        padded = (
            tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]),
            tf.pad(labels, [[0, missing], [0, 0]], constant_values=record_format.NO_LABEL),
            tf.pad(seeds, [[0, missing], [0, 0]]),
            tf.pad(records, [[0, missing]], constant_values=-1),
            tf.pad(weight, [[0, missing]]),
        )
        return [tf.ensure_shape(part, (rows, *part.shape[1:])) for part in padded]

    return _finish(batches.map(lambda *batch: tuple(pad(*batch))), split, reading)


def _part(reading: Reading, numbers, examples, *, rows: int | None = None):
    """This worker's part of a batch. All workers read all shards, each decodes its own part."""
    begin, end = reading.worker.part(tf.size(numbers, tf.int64) if rows is None else rows)
    return numbers[begin:end], examples[begin:end]


def _stream(split: Split, shards: tf.Tensor, interleave: int = _INTERLEAVE) -> tf.data.Dataset:
    """(record number, serialized Example) of the shards in the order of their numbers."""
    files = tf.constant([str(split.data_dir / shard.file) for shard in split.shards])
    counts = np.array([shard.records for shard in split.shards], np.int64)
    firsts = tf.constant(np.cumsum(counts) - counts)
    counts = tf.constant(counts)

    def shard(number):
        numbers = tf.data.Dataset.range(firsts[number], firsts[number] + counts[number])
        return tf.data.Dataset.zip(numbers, tf.data.TFRecordDataset(files[number]))

    numbers = tf.data.Dataset.from_tensor_slices(shards)
    return numbers.interleave(shard, cycle_length=interleave, block_length=_BLOCK)


def _windowed_shuffle(records: tf.data.Dataset, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """Shuffles each window of records; unlike Dataset.shuffle a pure function of (seed, epoch)."""

    def shuffle(window, numbers, examples):
        index = _shuffled_indices(tf.size(numbers), seed, epoch, salt=window)
        return tf.data.Dataset.from_tensor_slices((tf.gather(numbers, index), tf.gather(examples, index)))

    windows = records.batch(_WINDOW).enumerate()
    return windows.flat_map(lambda window, batch: shuffle(window, *batch))


def _shuffled_indices(count, seed: int, epoch: tf.Tensor, *, salt) -> tf.Tensor:
    key = tf.stack([order.epoch_word(seed, epoch), tf.cast(salt, tf.int64)])
    return tf.argsort(tf.random.stateless_uniform([count], key, dtype=tf.int64, minval=None, maxval=None))


def _decoded(
    encoded: tf.data.Dataset, split: Split, reading: Reading, *, seed: int, epoch, random_crops: bool = False
) -> tf.data.Dataset:
    """Batches (numbers [B], Examples [B]) -> (images, labels, seeds, numbers, weight).

    Each batch is a small data set of its own, from which the records that do not decode drop
    out; each of the others knows its row, so what is missing is known too.
    """
    decoding = reading.decoding(split)
    axes = list(split.manifest.axes)
    features = {"image": tf.io.FixedLenFeature([], tf.string)}
    features |= {axis: tf.io.FixedLenFeature([], tf.int64, record_format.NO_LABEL) for axis in axes}
    word = tf.cast(order.epoch_word(seed, epoch), tf.int32)
    threads = reading.threads or len(os.sched_getaffinity(0))

    def decode(row, number, example):
        parsed = tf.io.parse_single_example(example, features)
        crop_seed = (tf.cast(word, tf.int64), number % 2**31) if random_crops else None
        image = decode_fitted(parsed["image"], decoding, split.manifest.encodings, split.one_size, crop_seed)
        labels = (
            tf.stack([tf.cast(parsed[axis], tf.int32) for axis in axes]) if axes else tf.zeros(0, tf.int32)
        )
        return row, image, labels

    def batch(numbers, examples):
        count = tf.size(numbers, tf.int64)
        rows = tf.data.Dataset.range(count)
        rows = tf.data.Dataset.zip(rows, *map(tf.data.Dataset.from_tensor_slices, (numbers, examples)))
        rows = rows.map(decode, num_parallel_calls=threads, deterministic=True).ignore_errors()
        nothing = tf.zeros(0, tf.int64), tf.zeros((0, *decoding.size, 3), tf.uint8), tf.zeros((0, len(axes)))
        nothing = tf.nest.map_structure(lambda part, kind: tf.cast(part, kind), nothing, kinds)
        whole = rows.batch(tf.maximum(count, 1)).concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
        return whole.map(lambda *good: _in_place(*good, numbers, word))

    kinds = tf.int64, tf.uint8, tf.int32
    # Two batches under way: one begins while the other ends.
    return encoded.interleave(batch, cycle_length=2, block_length=1, num_parallel_calls=2, deterministic=True)


def _in_place(rows, images, labels, numbers, word: tf.Tensor):
    """What was decoded, in its rows; a row that was not is black, without labels, of weight 0."""
    count = tf.size(numbers, tf.int64)

    def put(parts, fill):
        shape = tf.concat([[count], tf.shape(parts, tf.int64)[1:]], 0)
        whole = tf.fill(shape, tf.constant(fill, parts.dtype))
        return tf.tensor_scatter_nd_update(whole, rows[:, None], parts)

    def fill_up():
        ones = tf.ones_like(rows, tf.float32)
        return put(images, 0), put(labels, record_format.NO_LABEL), put(ones, 0)

    def all_there():
        return images, labels, tf.ones_like(rows, tf.float32)

    images, labels, weight = tf.cond(tf.size(rows, tf.int64) == count, all_there, fill_up)
    seeds = tf.stack([tf.fill([count], word), tf.cast(numbers % 2**31, tf.int32)], axis=1)
    return images, labels, seeds, numbers, weight


def _require_whole(split: Split, images, labels, seeds, numbers, weight):
    """Ends the reading at the first record that was not decoded. In the graph only, as all of this."""
    files = tf.constant([str(split.data_dir / shard.file) for shard in split.shards])
    counts = np.array([shard.records for shard in split.shards], np.int64)
    there = (weight > 0) | (numbers < 0)  # padding is no loss
    first = tf.reduce_max(tf.where(there, np.int64(-1), numbers))
    shard = tf.searchsorted(tf.constant(np.cumsum(counts)), [first], side="right")[0]
    within = first - tf.gather(tf.constant(np.cumsum(counts) - counts), shard)
    message = tf.strings.join(
        ["DataError: ", tf.gather(files, shard), ", record ", tf.strings.as_string(within),
         ": does not decode; run python -m tfrecords_tools.verify on the data folder, which tells its key\n"]
    )  # fmt: skip
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(there), [message])]):
        return tf.identity(images), labels, seeds, numbers, weight


def _noted(split: Split, images, labels, seeds, records, weight):
    """Passes a batch of tensors on; prints and keeps (see `faults`) what has weight 0 in it."""

    def note(records, weight):
        for record in records[(weight == 0) & (records >= 0)].tolist():
            faults.found(split, record, "not an image", on_error="skip")
        return weight

    def changed():
        return tf.ensure_shape(tf.numpy_function(note, [records, weight], tf.float32), weight.shape)

    weight = tf.cond(tf.reduce_all(weight > 0), lambda: weight, changed)
    return images, labels, seeds, records, weight


def _finish(batches: tf.data.Dataset, split: Split, reading: Reading) -> tf.data.Dataset:
    if reading.on_error == "fail":
        batches = batches.map(lambda *batch: _require_whole(split, *batch))
    else:
        batches = batches.map(lambda *batch: _noted(split, *batch))
    named = batches.map(lambda *batch: as_batch(split, *batch))
    return named.prefetch(1).with_options(options())
