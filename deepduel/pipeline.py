"""Shards -> tf.data batches. Everything after this happens on the device.

A batch is a dict:

    images   uint8   [B, H, W, 3]   upright RGB, 0..255
    labels   {axis: int32 [B]}      -1 where an image has none
    seeds    int32   [B, 2]         random state of each image for its augmentation
    records  int64   [B]            record numbers within the split
    weight   float32 [B]            1; 0 for the padding that fills up the last evaluation batch

`make_train` and `make_eval` give the same as (images, labels[, weight]), for any `model.fit`.
"""

import dataclasses
import os
import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deepduel import order
from deepduel.decode import BatchDecoder, Decoding
from deepduel.shards import Split
from tfrecords_tools import records as record_format
from tfrecords_tools.cli import UsageError

READERS = ("random", "sequential")
_WINDOW = 8192  # encoded images that the sequential reader shuffles at a time
_INTERLEAVE = 8  # shards that it reads side by side
_BLOCK = 16  # records that it takes from each in turn
_LARGE_BATCH_BYTES = 64 << 20  # from here on, one batch is decoded at a time


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a split is read.

    Attributes:
      batch_size: images per batch, >= 1.
      size: (height, width) of the batches; None takes the images' own, if they have one size.
      fit: "crop" or "pad", see Decoding.
      fast_decode: approximate JPEG decoding, see Decoding.
      reader: "random" takes records by number out of memory-mapped shards, in a true global
        shuffle. "sequential" streams the shards (any file system that TensorFlow knows) and
        shuffles shards and windows of 8,192 records.
      threads: that decode; None takes all cores.
    """

    batch_size: int
    size: tuple[int, int] | None = None
    fit: str = "crop"
    fast_decode: bool = False
    reader: str = "random"
    threads: int | None = None

    def __post_init__(self):
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.reader not in READERS:
            raise UsageError(f"reader must be one of {', '.join(READERS)}, got {self.reader!r}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, got {self.threads}")

    def decoding(self, split: Split) -> Decoding:
        """Raises UsageError when the images differ in size and no size was asked for."""
        size = self.size or split.one_size
        if size is None:
            sizes = split.manifest.image_sizes
            raise UsageError(
                f"the images of {split.data_dir} have {len(sizes)} different sizes; say with size=(height, "
                "width) what they are to be brought to"
            )
        return Decoding(size, self.fit, self.fast_decode)


def make_train(
    data_dir: str | os.PathLike,
    *,
    batch_size: int,
    labels: str | None = None,
    split: str = "train",
    position: order.Position | None = None,
    **reading,
) -> tf.data.Dataset:
    """Endless training batches (images, labels), from `position` on.

    Args:
      labels: the axis whose labels to give, int32 [B]; None gives a dict of all axes.
      position: (seed, epoch, step) to start at. Each epoch visits every record once, in an
        order of its own; its last batch holds what is left. `steps_per_epoch` for `model.fit`
        is `order.steps_per_epoch(records, batch_size)`.
      reading: further fields of `Reading`.
    """
    opened = Split(data_dir, split)
    batches = train_batches(opened, Reading(batch_size, **reading), position or order.Position())
    pick = _label_picker(opened, labels)
    return batches.map(lambda batch: (batch["images"], pick(batch["labels"])))


def make_eval(
    data_dir: str | os.PathLike,
    *,
    batch_size: int,
    labels: str | None = None,
    split: str = "validation",
    **reading,
) -> tf.data.Dataset:
    """Every record exactly once, in order: (images, labels, weight).

    All batches have one shape: the last is filled up with black images of weight 0 and
    label 0. Images without a label on the axis have weight 0 too.
    """
    opened = Split(data_dir, split)
    batches = eval_batches(opened, Reading(batch_size, **reading))
    pick = _label_picker(opened, labels)

    def supervised(batch):
        labels = pick(batch["labels"])
        if isinstance(labels, dict):
            return batch["images"], labels, batch["weight"]
        return batch["images"], tf.maximum(labels, 0), batch["weight"] * tf.cast(labels >= 0, tf.float32)

    return batches.map(supervised)


def train_batches(split: Split, reading: Reading, position: order.Position) -> tf.data.Dataset:
    """Endless batches (dicts, see above) from `position` on; the last of an epoch is smaller."""
    if not len(split):
        raise UsageError(f"{split.data_dir}: split {split.name!r} holds no image to train on")
    if reading.reader == "sequential":
        return _sequential_train(split, reading, position)
    steps = order.steps_per_epoch(len(split), reading.batch_size)
    orders = _Orders(len(split), position.seed)
    first = position.epoch * steps + position.step

    def take(number: np.ndarray):
        epoch, step = divmod(int(number), steps)
        records = orders.epoch(epoch)[step * reading.batch_size : (step + 1) * reading.batch_size]
        return records, order.image_seeds(records, seed=position.seed, epoch=epoch)

    numbers = tf.data.Dataset.range(first, np.iinfo(np.int64).max)
    return _random(numbers, split, reading, take, rows=None)


def eval_batches(split: Split, reading: Reading) -> tf.data.Dataset:
    """Every record once, in order, in batches of one shape (padding has weight 0, record -1)."""
    rows = max(1, min(reading.batch_size, len(split)))
    if reading.reader == "sequential":
        return _sequential_eval(split, dataclasses.replace(reading, batch_size=rows))

    def take(number: np.ndarray):
        records = np.arange(number * rows, min((number + 1) * rows, len(split)), dtype=np.int64)
        return records, order.image_seeds(records, seed=0, epoch=0)

    numbers = tf.data.Dataset.range(order.steps_per_epoch(len(split), rows))
    return _random(numbers, split, reading, take, rows=rows)


def _random(
    numbers: tf.data.Dataset, split: Split, reading: Reading, take: Callable, *, rows: int | None
) -> tf.data.Dataset:
    """The random-access reader: batch numbers -> batches."""
    decoding = reading.decoding(split)
    decode = BatchDecoder(split, decoding, threads=reading.threads)
    labels = np.stack([split.labels[axis] for axis in split.manifest.axes], 1) if split.labels else None

    @tf.autograph.experimental.do_not_convert
    def load(number):
        records, seeds = take(number)
        pad = (rows or len(records)) - len(records)
        picked = labels[records] if labels is not None else np.empty((len(records), 0), np.int32)
        return (
            decode(records, rows=len(records) + pad),
            np.pad(picked, ((0, pad), (0, 0)), constant_values=record_format.NO_LABEL),
            np.pad(seeds, ((0, pad), (0, 0))),
            np.pad(records, (0, pad), constant_values=-1),
        )

    def batch(number):
        images, labels, seeds, records = tf.numpy_function(
            load, [number], (tf.uint8, tf.int32, tf.int32, tf.int64), stateful=False
        )
        images.set_shape((rows, *decoding.size, 3))
        labels.set_shape((rows, len(split.manifest.axes)))
        seeds.set_shape((rows, 2))
        records.set_shape((rows,))
        return _as_batch(split, images, labels, seeds, records)

    # Batch numbers, not images, travel through tf.data: one call decodes a batch with all
    # cores. A second batch under way hides the end of the first; for large batches the
    # prefetched one does that alone, since each costs its full memory.
    batch_bytes = reading.batch_size * decoding.size[0] * decoding.size[1] * 3
    parallel = 2 if batch_bytes < _LARGE_BATCH_BYTES else 1
    batches = numbers.map(batch, num_parallel_calls=parallel, deterministic=True)
    return batches.prefetch(1).with_options(_options())


def _sequential_train(split: Split, reading: Reading, position: order.Position) -> tf.data.Dataset:
    def epoch(number):
        shards = _shuffled_indices(len(split.shards), position.seed, number, salt=-1)
        records = _windowed_shuffle(_stream(split, shards), position.seed, number)
        return _decoded(records, split, reading, seed=position.seed, epoch=number).batch(reading.batch_size)

    epochs = tf.data.Dataset.range(position.epoch, np.iinfo(np.int64).max)
    batches = epochs.flat_map(epoch).skip(position.step)
    return _finish(batches, split, reading)


def _sequential_eval(split: Split, reading: Reading) -> tf.data.Dataset:
    records = _stream(split, tf.range(len(split.shards), dtype=tf.int64), interleave=1)
    batches = _decoded(records, split, reading, seed=0, epoch=0).batch(reading.batch_size)

    def pad(images, labels, seeds, records):
        missing = reading.batch_size - tf.shape(images)[0]
        padded = (
            tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]]),
            tf.pad(labels, [[0, missing], [0, 0]], constant_values=record_format.NO_LABEL),
            tf.pad(seeds, [[0, missing], [0, 0]]),
            tf.pad(records, [[0, missing]], constant_values=-1),
        )
        return [tf.ensure_shape(part, (reading.batch_size, *part.shape[1:])) for part in padded]

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
    named = batches.map(lambda *batch: _as_batch(split, *batch))
    return named.prefetch(1).with_options(_options())


def _as_batch(split: Split, images, labels, seeds, records) -> dict[str, tf.Tensor]:
    return {
        "images": images,
        "labels": {axis: labels[:, column] for column, axis in enumerate(split.manifest.axes)},
        "seeds": seeds,
        "records": records,
        "weight": tf.cast(records >= 0, tf.float32),
    }


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # The batches are whole already: nothing for the auto-sharding of a strategy to divide.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def _label_picker(split: Split, axis: str | None) -> Callable:
    if axis is None:
        return lambda labels: labels
    if axis not in split.manifest.axes:
        raise UsageError(
            f"{split.data_dir} has no label axis {axis!r}; it has {', '.join(split.manifest.axes) or 'none'}"
        )
    return lambda labels: labels[axis]


class _Orders:
    """The permutations of the epochs being read; batches of two epochs may be under way."""

    def __init__(self, records: int, seed: int):
        self._records = records
        self._seed = seed
        self._epochs: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def epoch(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._epochs:
                self._epochs = {number: kept for number, kept in self._epochs.items() if number >= epoch - 1}
                self._epochs[epoch] = order.permutation(self._records, seed=self._seed, epoch=epoch)
            return self._epochs[epoch]
