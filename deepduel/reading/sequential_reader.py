"""The sequential reader: shards streamed from start to end, in TensorFlow's own operations only.

For cold disks and network file systems, where random reads are slow, and for tf.data service, whose
workers cannot run Python functions of ours. Same batches as the random-access reader, in an order that
is shuffled by shards and by windows instead of globally.
"""

import sys
from typing import Any

import numpy as np
import tensorflow as tf

from deepduel.decoding.image_graph import decode_image, emptied
from deepduel.decoding.split import Split
from deepduel.reading import order
from deepduel.reading.batch import as_batch, options
from deepduel.reading.options import ReadOptions
from deepduel.reading.shard_stream import ShardStream
from tfrecords_tools import host_cpus
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import records as record_format

_WINDOW_BYTES = 32 << 20  # of encoded images are shuffled at a time; two windows are in memory
_WINDOW_RECORDS = 8192, 256  # at most, at least
_SIDE_BY_SIDE = 8  # shards
_GATHERED = 64  # records that leave a window together
_LISTED = 3  # bad records of one batch that get a line of their own


@tf.autograph.experimental.do_not_convert  # nothing here needs it, and converting takes seconds
def train(split: Split, reading: ReadOptions, position: order.Position) -> tf.data.Dataset:
    """Endless training batches from `position` on; what lies before its window is not read."""
    over, step = divmod(position.step, order.steps_per_epoch(len(split), reading.batch_size))
    position = order.Position(position.seed, position.epoch + over, step)
    window = window_records(split)
    shards = ShardStream(split)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        begin = tf.where(number == position.epoch, np.int64(position.step * reading.batch_size), np.int64(0))
        first = begin // window
        in_turn = shuffled_indices(len(split.shards), position.seed, number, salt=-1)
        records = shards.records(in_turn, first * window, side_by_side=_SIDE_BY_SIDE)
        records = _windowed_shuffle(records, window, first, position.seed, number)
        encoded = records.skip(begin - first * window).batch(reading.batch_size)
        encoded = encoded.map(lambda *batch: _part(reading, *batch))
        return _decoded(encoded, split, reading, seed=position.seed, epoch=number, random_crops=True)

    epochs = tf.data.Dataset.range(position.epoch, np.iinfo(np.int64).max)
    return _finish(epochs.flat_map(epoch), split, reading, shards)


@tf.autograph.experimental.do_not_convert
def evaluate(split: Split, reading: ReadOptions, *, rows: int) -> tf.data.Dataset:
    """Every record once, in order, in batches of `rows`."""
    shards = ShardStream(split)
    records = shards.records(tf.range(len(split.shards), dtype=tf.int64), 0, side_by_side=1)
    encoded = records.batch(rows).map(lambda *batch: _part(reading, *batch, rows=rows))
    batches = _decoded(encoded, split, reading, seed=0, epoch=0)
    begin, end = reading.worker.part(rows)
    rows = end - begin

    def pad(
        images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor, records: tf.Tensor, weight: tf.Tensor
    ) -> list[tf.Tensor]:
        missing = rows - tf.shape(images)[0]
        padded = (
            tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]),
            tf.pad(labels, [[0, missing], [0, 0]], constant_values=record_format.NO_LABEL),
            tf.pad(seeds, [[0, missing], [0, 0]]),
            tf.pad(records, [[0, missing]], constant_values=-1),
            tf.pad(weight, [[0, missing]]),
        )
        return [tf.ensure_shape(part, (rows, *part.shape[1:])) for part in padded]

    return _finish(batches.map(lambda *batch: tuple(pad(*batch))), split, reading, shards)


def require_readable(split: Split) -> None:
    """Raises UsageError for a part of a split, or where TensorFlow has no file system for the shards' URL."""
    if split.part is not None:
        raise UsageError(
            f"reader=sequential reads whole splits, not {split.name}; use reader=random, or convert the "
            "images with --split=train:0.8,validation:0.2"
        )
    scheme, separator, _ = split.path(0).partition("://") if split.shards else ("", "", "")
    schemes = sorted(filter(None, tf.io.gfile.get_registered_schemes()))
    if separator and scheme not in schemes:
        raise UsageError(
            f"reader=sequential reads {split.path(0)} by TensorFlow, which has file systems for "
            f"{', '.join(schemes)}, not for {scheme}; use reader=random, which keeps a copy of what it reads"
        )


def _part(reading: ReadOptions, *batch: tf.Tensor, rows: int | None = None) -> tuple[tf.Tensor, ...]:
    """This worker's part of a batch. All workers read all shards, each decodes its own part."""
    begin, end = reading.worker.part(tf.size(batch[0], tf.int64) if rows is None else rows)
    return tuple(column[begin:end] for column in batch)


def window_records(split: Split) -> int:
    """How many records are shuffled at a time: a matter of the data alone, so that the order is too."""
    mean = sum(shard.bytes for shard in split.shards) / len(split)
    most, least = _WINDOW_RECORDS
    return int(min(max(_WINDOW_BYTES / mean, least), most))


def _windowed_shuffle(
    records: tf.data.Dataset, size: int, first: tf.Tensor, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """Shuffles each window of records; unlike Dataset.shuffle a pure function of (seed, epoch, window).

    Args:
      first: the number of the window with which `records` begins.
    """

    def shuffle(window: tf.Tensor, columns: tuple[tf.Tensor, ...]) -> tf.data.Dataset:
        index = shuffled_indices(tf.size(columns[0]), seed, epoch, salt=window)
        some = tf.data.Dataset.from_tensor_slices(index).batch(_GATHERED)  # all at once would be a copy of it
        return some.map(lambda rows: tuple(tf.gather(column, rows) for column in columns)).unbatch()

    windows = records.batch(size).prefetch(1).enumerate(first)
    return windows.flat_map(shuffle)


def shuffled_indices(
    count: tf.Tensor | int, seed: int, epoch: tf.Tensor | int, *, salt: tf.Tensor | int
) -> tf.Tensor:
    """0 … count - 1 in an order that depends on (seed, epoch, salt); int64."""
    key = tf.stack([order.epoch_word(seed, epoch), tf.cast(salt, tf.int64)])
    draws = tf.random.stateless_uniform([count], key, dtype=tf.int64, minval=None, maxval=None)
    return tf.cast(tf.argsort(draws), tf.int64)


def _decoded(
    encoded: tf.data.Dataset,
    split: Split,
    reading: ReadOptions,
    *,
    seed: int,
    epoch: tf.Tensor | int,
    random_crops: bool = False,
) -> tf.data.Dataset:
    """Batches (numbers [B], images [B], labels [B, axes]) -> (images, labels, seeds, numbers, weight).

    Each batch is a small data set of its own, from which the images that do not decode drop
    out; each of the others knows its row, so what is missing is known too.
    """
    decoding = reading.decoding(split)
    word = tf.cast(order.epoch_word(seed, epoch), tf.int32)
    threads = reading.threads or host_cpus.available()

    def decode(row: tf.Tensor, number: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        crop_seed = (tf.cast(word, tf.int64), number % 2**31) if random_crops else None
        return row, decode_image(data, decoding, split.manifest.encodings, split.one_size, crop_seed)

    def batch(numbers: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
        count = tf.size(numbers, tf.int64)
        rows = tf.data.Dataset.range(count)
        columns = numbers, emptied(images, split.one_size)
        rows = tf.data.Dataset.zip(rows, *map(tf.data.Dataset.from_tensor_slices, columns))
        rows = rows.map(decode, num_parallel_calls=threads, deterministic=True).ignore_errors()
        nothing = tf.zeros(0, tf.int64), tf.zeros((0, *decoding.size, 3), tf.uint8)
        decoded = rows.batch(tf.maximum(count, 1)).concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
        return decoded.map(lambda row, image: _in_place(row, image, labels, numbers, word))

    # Two batches under way: one begins while the other ends.
    return encoded.interleave(batch, cycle_length=2, block_length=1, num_parallel_calls=2, deterministic=True)


def _in_place(
    rows: tf.Tensor, images: tf.Tensor, labels: tf.Tensor, numbers: tf.Tensor, word: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Puts decoded images into their rows; a row without one is black, without labels, and has weight 0."""
    count = tf.size(numbers, tf.int64)

    def put(parts: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[count], tf.shape(parts, tf.int64)[1:]], 0)
        return tf.scatter_nd(rows[:, None], parts, shape)

    def with_gaps() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        weight = put(tf.ones_like(rows, tf.float32))
        return put(images), tf.where(weight[:, None] > 0, labels, record_format.NO_LABEL), weight

    def complete() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return images, labels, tf.ones_like(rows, tf.float32)

    images, labels, weight = tf.cond(tf.size(rows, tf.int64) == count, complete, with_gaps)
    seeds = tf.stack([tf.fill([count], word), tf.cast(numbers % 2**31, tf.int32)], axis=1)
    return images, labels, seeds, numbers, weight


def _finish(
    batches: tf.data.Dataset, split: Split, reading: ReadOptions, shards: ShardStream
) -> tf.data.Dataset:
    """Raises an error at, or reports, each record that was not decoded."""
    handle = _refuse if reading.on_error == "fail" else _report

    def check(
        images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor, records: tf.Tensor, weight: tf.Tensor
    ) -> dict[str, Any]:
        bad = tf.boolean_mask(records, (weight == 0) & (records >= 0))  # padding is no loss
        handle_bad = lambda: handle(shards, bad)
        with tf.control_dependencies([tf.cond(tf.size(bad) > 0, handle_bad, lambda: tf.constant(True))]):
            return as_batch(split, tf.identity(images), tf.unstack(labels, axis=1), seeds, records, weight)

    finished = options()
    # TensorFlow's rewriting of the data set takes 0.2 seconds, and makes it no faster.
    finished.experimental_optimization.apply_default_optimizations = False
    return batches.map(check).with_options(finished)


def _refuse(shards: ShardStream, bad: tf.Tensor) -> tf.Tensor:
    text = tf.strings.join(
        ["DataError: ", _described(shards, bad[0]),
         "; run python -m tfrecords_tools.verify on the data folder, or leave bad images out with "
         "on_error=skip\n"]
    )  # fmt: skip
    with tf.control_dependencies([tf.debugging.Assert(False, [text])]):
        return tf.constant(False)


def _report(shards: ShardStream, bad: tf.Tensor) -> tf.Tensor:
    """Prints them from the graph, in the process that runs it. A batch's weights say how many there were."""
    listed = tf.map_fn(
        lambda number: _described(shards, number), bad[:_LISTED], fn_output_signature=tf.string
    )
    lines = tf.strings.join(["left out: ", listed])
    more = tf.size(bad) - _LISTED
    rest = tf.strings.join(["left out: ", tf.strings.as_string(more), " more images of the same batch"])
    lines = tf.cond(more > 0, lambda: tf.concat([lines, [rest]], 0), lambda: lines)
    with tf.control_dependencies(
        [tf.print(tf.strings.reduce_join(lines, separator="\n"), output_stream=sys.stderr)]
    ):
        return tf.constant(True)


def _described(shards: ShardStream, number: tf.Tensor) -> tf.Tensor:
    path, within, key, sound = shards.key(number)
    why = tf.where(sound, "does not decode", "its checksum does not fit")
    return tf.strings.join([path, ", record ", tf.strings.as_string(within), " (key ", key, "): ", why])
