"""Shards -> tf.data batches. Everything after this happens on the device.

`make_train` and `make_eval` yield (images, labels[, weight]) for any `model.fit`;
`train_batches` and `eval_batches` yield the dict that `batch` describes.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from types import ModuleType

import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.reading import data_workers as remote_parts
from deepduel.reading import order, random_reader, sequential_reader
from deepduel.reading.options import ReadOptions
from tfrecords_tools.errors import UsageError

# Of data sets for `model.fit` whose images differ in size: the input size of most ImageNet networks.
DEFAULT_SIZE = (224, 224)

_unconverted = tf.autograph.experimental.do_not_convert  # AutoGraph takes 30 ms to find nothing to convert


def make_train(
    data_dir: str | os.PathLike,
    *,
    batch_size: int,
    labels: str | None = None,
    split: str = "train",
    position: order.Position | None = None,
    size: tuple[int, int] | None = None,
    fit: str = "crop",
    fast_decode: bool = False,
    reader: str = "random",
    threads: int | None = None,
    on_error: str = "fail",
    sampling: str = "uniform",
    cache: str = "none",
    remote_cache: str = "auto",
    worker: order.Worker | None = None,
    data_workers: Sequence[str] = (),
) -> tf.data.Dataset:
    """Endless training batches.

    Each epoch visits every record once (see `sampling`), in an order of its own that depends only on the
    seed and the epoch; its last batch holds the records left over.

    Args:
      data_dir: folder of shards, or its URL.
      batch_size: images per batch, of all workers together.
      labels: the axis whose labels to yield; None yields a dict of all axes.
      split: name of the split.
      position: (seed, epoch, step) at which to start; None: the start of epoch 0 with seed 0.
      size: (height, width) of the images in pixels; None: their own size when all have the same, else (224,
        224).
      fit: how images of other sizes are resized to `size`: "crop" fills the frame and cuts off the rest,
        "pad" fits inside it with black around, "native" cuts a frame out at a random place.
      fast_decode: decode JPEGs approximately, which is faster.
      reader: "random" reads records by number in a true global shuffle; "sequential" streams the shards, for
        data on slow disks that do not fit into memory.
      threads: processes that decode (reader "sequential": threads); None: one per core.
      on_error: what to do with an image that does not decode: "fail" raises an error that names it; "skip"
        gives it weight 0.
      sampling: "uniform", "balanced", "balanced:AXIS" or "weighted:AXIS:NAME=2,OTHER=1". Needs reader
        "random".
      cache: "none", "ram" or "decoded:FOLDER": keeps decoded images. Needs reader "random".
      remote_cache: local copy of shards in an object store: "auto" (a temporary file), "FOLDER:SIZE",
        "ram:SIZE" or "none" (one request per image). Needs reader "random".
      worker: the part of every batch to read; None reads whole batches.
      data_workers: "HOST:PORT" of processes of `deepduel.data_service` on other machines that read and decode
        the batches, each a part; the batches are the same. Needs cache "none".

    Returns:
      A data set of infinite cardinality that yields (images, labels), or (images, labels, weight) with
      on_error "skip".

      - `images`: uint8 [B, H, W, 3], upright RGB, 0 to 255.
      - `labels`: int32 [B], or {axis: int32 [B]} when `labels` is None; -1 for an image without a label.
      - `weight`: float32 [B], 0 for an image that does not decode or has no label, else 1. With it, `labels`
        of one axis are never negative.

      Its attributes do not survive a `map`:

      - `class_names`: the names of the labels 0, 1, …; a dict {axis: names} when `labels` is None.
      - `image_size`: (height, width) of the images.
      - `steps_per_epoch`: number of batches in an epoch, which `model.fit` needs.

    Raises:
      UsageError: an argument is out of range, or the split or the axis does not exist.
      DataError: the folder of shards is missing or damaged.

    Examples:
      >>> from deepduel import pipeline
      >>> train = pipeline.make_train("SHARDS", batch_size=32, labels="category")
      >>> images, labels = next(iter(train))
      >>> images.shape, labels.dtype.name
      (TensorShape([32, 32, 32, 3]), 'int32')
      >>> len(train.class_names)
      3
    """
    options = ReadOptions(
        batch_size, size, fit, fast_decode, reader, threads, on_error, sampling, cache,
        worker or order.Worker(), remote_cache, tuple(data_workers),
    )  # fmt: skip
    options.check_equal_parts()
    opened = Split(data_dir, split)
    options = _sized(options, opened)
    pick = _label_picker(opened, labels)
    batches = train_batches(opened, options, position or order.Position())
    if on_error == "skip":
        batches = batches.map(_unconverted(lambda batch: _weighted(batch, pick)))
    else:
        batches = batches.map(_unconverted(lambda batch: (batch["images"], pick(batch["labels"]))))
    batches.steps_per_epoch = order.steps_per_epoch(len(opened), batch_size)
    return _described(batches, opened, options, labels)


def make_eval(
    data_dir: str | os.PathLike,
    *,
    batch_size: int,
    labels: str | None = None,
    split: str = "validation",
    size: tuple[int, int] | None = None,
    fit: str = "crop",
    fast_decode: bool = False,
    reader: str = "random",
    threads: int | None = None,
    on_error: str = "fail",
    cache: str = "none",
    remote_cache: str = "auto",
    worker: order.Worker | None = None,
    data_workers: Sequence[str] = (),
) -> tf.data.Dataset:
    """Batches with every record exactly once, in the order of the shards.

    Args:
      data_dir: folder of shards, or its URL.
      batch_size: images per batch, of all workers together.
      labels: the axis whose labels to yield; None yields a dict of all axes.
      split: name of the split.
      size: (height, width) of the images in pixels; None: their own size when all have the same, else (224,
        224).
      fit: as in `make_train`, but "native" cuts out the centre.
      fast_decode: decode JPEGs approximately, which is faster.
      reader: "random" or "sequential", as in `make_train`.
      threads: processes that decode (reader "sequential": threads); None: one per core.
      on_error: "fail" or "skip", as in `make_train`.
      cache: "none", "ram" or "decoded:FOLDER", as in `make_train`.
      remote_cache: as in `make_train`.
      worker: the part of every batch to read; None reads whole batches.
      data_workers: "HOST:PORT" of processes of `deepduel.data_service` on other machines that read and decode
        the batches, each a part; the batches are the same. Needs cache "none".

    Returns:
      A data set of known cardinality that yields (images, labels, weight) in batches of one shape.

      - `images`: uint8 [B, H, W, 3], upright RGB, 0 to 255; black where the last batch is padded.
      - `labels`: int32 [B], 0 for an image without a label; or {axis: int32 [B]} when `labels` is None, -1
        for an image without a label.
      - `weight`: float32 [B], 0 for padding and for an image that does not decode or has no label, else 1.

      Its attributes `class_names` and `image_size` are as in `make_train`.

    Raises:
      UsageError: an argument is out of range, or the split or the axis does not exist.
      DataError: the folder of shards is missing or damaged.

    Examples:
      >>> from deepduel import pipeline
      >>> validation = pipeline.make_eval("SHARDS", batch_size=32, labels="authenticity")
      >>> validation.class_names
      ['real', 'fake']
      >>> int(sum(weight.numpy().sum() for images, labels, weight in validation))
      54
    """
    options = ReadOptions(
        batch_size, size, fit, fast_decode, reader, threads, on_error, cache=cache,
        worker=worker or order.Worker(), remote_cache=remote_cache, data_workers=tuple(data_workers),
    )  # fmt: skip
    options.check_equal_parts()
    opened = Split(data_dir, split)
    options = _sized(options, opened)
    pick = _label_picker(opened, labels)
    batches = eval_batches(opened, options).map(_unconverted(lambda batch: _weighted(batch, pick)))
    return _described(batches, opened, options, labels)


def _sized(options: ReadOptions, split: Split) -> ReadOptions:
    """The options, with a size for images that differ in theirs."""
    if options.size is None and split.one_size is None:
        return dataclasses.replace(options, size=DEFAULT_SIZE)
    return options


def _described(
    batches: tf.data.Dataset, split: Split, options: ReadOptions, axis: str | None
) -> tf.data.Dataset:
    """Sets `class_names`, as Keras' `image_dataset_from_directory` does, and `image_size`."""
    names = {name: list(labels) for name, labels in split.manifest.axes.items()}
    batches.class_names = names if axis is None else names[axis]
    batches.image_size = options.decoding(split).size
    return batches


def train_batches(split: Split, reading: ReadOptions, position: order.Position) -> tf.data.Dataset:
    """Endless batches from `position` on; the last of an epoch is smaller."""
    if not len(split):
        raise UsageError(f"{split.data_dir}: split {split.name!r} holds no image to train on")
    reader = _reader(reading, split)
    if reading.data_workers:
        return remote_parts.train(split, reading, position, reader.train)
    return reader.train(split, reading, position)


def eval_batches(split: Split, reading: ReadOptions, *, rows: int | None = None) -> tf.data.Dataset:
    """Every record once, in order, in batches of one shape (padding has weight 0, record -1).

    Args:
      rows: rows of a batch of all workers together; None: `batch_size`, or fewer where the split has fewer.
    """
    workers = reading.worker.count
    rows = rows or max(1, min(reading.batch_size, -(-len(split) // workers) * workers))
    reader = _reader(reading, split)
    if reading.data_workers:
        return remote_parts.evaluate(split, reading, rows=rows, read=reader.evaluate)
    return reader.evaluate(split, reading, rows=rows)


def _reader(reading: ReadOptions, split: Split) -> ModuleType:
    if reading.reader == "sequential":
        sequential_reader.require_readable(split)
    return {"random": random_reader, "sequential": sequential_reader}[reading.reader]


def _weighted(batch: dict, pick: Callable) -> tuple:
    """(images, labels, weight), with weight 0 where there is no label or no image."""
    labels = pick(batch["labels"])
    if isinstance(labels, dict):
        return batch["images"], labels, batch["weight"]
    return batch["images"], tf.maximum(labels, 0), batch["weight"] * tf.cast(labels >= 0, tf.float32)


def _label_picker(split: Split, axis: str | None) -> Callable:
    if axis is None:
        return lambda labels: labels
    if axis not in split.manifest.axes:
        raise UsageError(
            f"{split.data_dir} has no label axis {axis!r}; it has {', '.join(split.manifest.axes) or 'none'}"
        )
    return lambda labels: labels[axis]
