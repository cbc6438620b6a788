"""The sequential reader: shards streamed from start to end, in TensorFlow's own operations only.

For file systems that cannot be memory-mapped (gs://, s3://, cold disks). Same batches as the
random-access reader, in an order that is shuffled by shards and by windows instead of globally.
"""

import numpy as np
import tensorflow as tf

from deepduel import order
from deepduel.decode import Decoding
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
        return _decoded(records, split, reading, seed=position.seed, epoch=number).batch(reading.batch_size)

    epochs = tf.data.Dataset.range(position.epoch, np.iinfo(np.int64).max)
    batches = epochs.flat_map(epoch).skip(position.step)
    return _finish(batches, split, reading)


def evaluate(split: Split, reading: Reading, *, rows: int) -> tf.data.Dataset:
    """Every record once, in order, in batches of `rows`."""
    records = _stream(split, tf.range(len(split.shards), dtype=tf.int64), interleave=1)
    batches = _decoded(records, split, reading, seed=0, epoch=0).batch(rows)

    def pad(images, labels, seeds, records):
        missing = rows - tf.shape(images)[0]
        padded = (
            tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]),
            tf.pad(labels, [[0, missing], [0, 0]], constant_values=record_format.NO_LABEL),
            tf.pad(seeds, [[0, missing], [0, 0]]),
            tf.pad(records, [[0, missing]], constant_values=-1),
        )
        return [tf.ensure_shape(part, (rows, *part.shape[1:])) for part in padded]

    return _finish(batches.map(lambda *batch: tuple(pad(*batch))), split, reading)


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
    records: tf.data.Dataset, split: Split, reading: Reading, *, seed: int, epoch
) -> tf.data.Dataset:
    """(number, Example) -> (image, labels, seeds, number), in TensorFlow's own operations only."""
    decoding = reading.decoding(split)
    axes = list(split.manifest.axes)
    features = {"image": tf.io.FixedLenFeature([], tf.string)}
    features |= {axis: tf.io.FixedLenFeature([], tf.int64, record_format.NO_LABEL) for axis in axes}
    word = tf.cast(order.epoch_word(seed, epoch), tf.int32)

    def decode(number, example):
        parsed = tf.io.parse_single_example(example, features)
        image = _fit_in_graph(_decode_in_graph(parsed["image"], split, decoding), decoding)
        labels = (
            tf.stack([tf.cast(parsed[axis], tf.int32) for axis in axes]) if axes else tf.zeros(0, tf.int32)
        )
        return image, labels, tf.stack([word, tf.cast(number % 2**31, tf.int32)]), number

    return records.map(decode, num_parallel_calls=reading.threads or tf.data.AUTOTUNE, deterministic=True)


def _decode_in_graph(data: tf.Tensor, split: Split, decoding: Decoding) -> tf.Tensor:
    def jpeg():
        method = "INTEGER_FAST" if decoding.fast else "INTEGER_ACCURATE"
        return tf.io.decode_jpeg(data, channels=3, dct_method=method, fancy_upscaling=not decoding.fast)

    def other():
        if set(split.manifest.encodings) - {"jpeg"} == {"raw"}:
            return tf.reshape(tf.io.decode_raw(data, tf.uint8), (*split.one_size, 3))
        return tf.io.decode_png(data, channels=3)

    is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
    return tf.ensure_shape(tf.cond(is_jpeg, jpeg, other), (None, None, 3))


def _fit_in_graph(image: tf.Tensor, decoding: Decoding) -> tf.Tensor:
    """`decode.fit_image` in TensorFlow's operations; the same to within rounding."""
    height, width = decoding.size

    def fit():
        h, w = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
        if decoding.fit == "pad":
            resized = tf.image.resize_with_pad(tf.cast(image, tf.float32), height, width, antialias=True)
        else:
            scale = tf.maximum(height / h, width / w)
            size = tf.maximum(
                tf.stack([height, width]), tf.cast(tf.math.ceil(tf.stack([h, w]) * scale), tf.int32)
            )
            resized = tf.image.resize(image, size, antialias=True)
            resized = tf.image.resize_with_crop_or_pad(resized, height, width)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    same = tf.reduce_all(tf.shape(image)[:2] == decoding.size)
    return tf.ensure_shape(tf.cond(same, lambda: image, fit), (height, width, 3))


def _finish(batches: tf.data.Dataset, split: Split, reading: Reading) -> tf.data.Dataset:
    named = batches.map(lambda *batch: as_batch(split, *batch))
    return named.prefetch(1).with_options(options())
