"""Shards -> tf.data batches. Everything after this happens on the device.

`make_train` and `make_eval` give (images, labels[, weight]) for any `model.fit`;
`train_batches` and `eval_batches` the whole batch, as `reading` describes it.
"""

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.reading import order, random_reader, sequential_reader
from deepduel.reading.options import ReadOptions
from tfrecords_tools.errors import UsageError


def make_train(
    data_dir: str | os.PathLike,
    *,
    batch_size: int,
    labels: str | None = None,
    split: str = "train",
    position: order.Position | None = None,
    **reading: Any,
) -> tf.data.Dataset:
    """Endless training batches (images, labels), from `position` on.

    With on_error="skip" they are (images, labels, weight), as those of `make_eval`.

    Args:
      labels: the axis whose labels to give, int32 [B]; None gives a dict of all axes.
      position: (seed, epoch, step) to start at. Each epoch visits every record once, in an
        order of its own; its last batch holds what is left. `steps_per_epoch` for `model.fit`
        is `order.steps_per_epoch(records, batch_size)`.
      reading: further fields of `ReadOptions`.
    """
    opened = Split(data_dir, split)
    options = ReadOptions(batch_size, **reading)
    batches = train_batches(opened, options, position or order.Position())
    pick = _label_picker(opened, labels)
    if options.on_error == "skip":
        return batches.map(lambda batch: _weighted(batch, pick))
    return batches.map(lambda batch: (batch["images"], pick(batch["labels"])))


def make_eval(
    data_dir: str | os.PathLike,
    *,
    batch_size: int,
    labels: str | None = None,
    split: str = "validation",
    **reading: Any,
) -> tf.data.Dataset:
    """Every record exactly once, in order: (images, labels, weight).

    All batches have one shape: the last is filled up with black images of weight 0 and
    label 0. Images without a label on the axis have weight 0 too.
    """
    opened = Split(data_dir, split)
    batches = eval_batches(opened, ReadOptions(batch_size, **reading))
    pick = _label_picker(opened, labels)
    return batches.map(lambda batch: _weighted(batch, pick))


def train_batches(split: Split, reading: ReadOptions, position: order.Position) -> tf.data.Dataset:
    """Endless batches from `position` on; the last of an epoch is smaller."""
    if not len(split):
        raise UsageError(f"{split.data_dir}: split {split.name!r} holds no image to train on")
    return _reader(reading).train(split, reading, position)


def eval_batches(split: Split, reading: ReadOptions) -> tf.data.Dataset:
    """Every record once, in order, in batches of one shape (padding has weight 0, record -1)."""
    workers = reading.worker.count
    rows = max(1, min(reading.batch_size, -(-len(split) // workers) * workers))
    return _reader(reading).evaluate(split, reading, rows=rows)


def _reader(reading: ReadOptions):
    return {"random": random_reader, "sequential": sequential_reader}[reading.reader]


def _weighted(batch, pick: Callable):
    """(images, labels, weight): nothing that has no label, or no image, counts."""
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
