"""Batches whose parts other machines read and decode, joined into exactly the batches of this machine alone.

Each data worker (see `data_server`) reads its part of every batch, see `order.Worker`, and sends it over one
connection. A thread here receives the parts side by side into the batch's memory, one batch ahead. A data
worker that ends, or is silent for 30 seconds, is left out: the batches continue at the same number with those
that still answer, or on this machine where none does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.reading import data_protocol as protocol
from deepduel.reading import order
from deepduel.reading.batch import as_batch, options
from deepduel.reading.data_fleet import Fleet
from deepduel.reading.host_calls import HostFunction
from deepduel.reading.joined_batches import JoinedBatches, Plan
from deepduel.reading.options import ReadOptions

_FIELDS = ("batch_size", "size", "fit", "fast_decode", "reader", "on_error", "sampling")


@dataclasses.dataclass(frozen=True)
class Training:
    """Batches of shuffled epochs without end, numbered from the first one of epoch 0."""

    split: Split
    reading: ReadOptions
    seed: int
    read: Callable[[Split, ReadOptions, order.Position], tf.data.Dataset]

    @property
    def count(self) -> None:
        return None

    def _position(self, number: int) -> order.Position:
        steps = order.steps_per_epoch(len(self.split), self.reading.batch_size)
        return order.Position(self.seed, *divmod(number, steps))

    def rows(self, number: int) -> int:
        size = self.reading.batch_size
        return min(size, len(self.split) - self._position(number).step * size)

    def request(self, number: int, part: order.Worker) -> protocol.Request:
        position = self._position(number)
        return protocol.Request(
            _fields(self.reading),
            (part.index, part.count),
            position=(position.seed, position.epoch, position.step),
        )

    def local(self, number: int) -> tf.data.Dataset:
        return self.read(self.split, self.reading, self._position(number))

    def place(self, number: int) -> str:
        position = self._position(number)
        return f"epoch {position.epoch + 1}, step {position.step}"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Every record once; all batches have `total` rows."""

    split: Split
    reading: ReadOptions
    total: int
    read: Callable[..., tf.data.Dataset]

    @property
    def count(self) -> int:
        return order.steps_per_epoch(len(self.split), self.total)

    def rows(self, number: int) -> int:
        return self.total

    def request(self, number: int, part: order.Worker) -> protocol.Request:
        fields = _fields(self.reading)
        return protocol.Request(fields, (part.index, part.count), rows=self.total, skip=number)

    def local(self, number: int) -> tf.data.Dataset:
        return self.read(self.split, self.reading, rows=self.total).skip(number)

    def place(self, number: int) -> str:
        return f"batch {number} of split {self.split.name!r}"


def _fields(reading: ReadOptions) -> dict[str, Any]:
    return {name: getattr(reading, name) for name in _FIELDS}


def train(
    split: Split,
    reading: ReadOptions,
    position: order.Position,
    read: Callable[[Split, ReadOptions, order.Position], tf.data.Dataset],
) -> tf.data.Dataset:
    """Endless training batches from `position` on; `read` makes them on this machine.

    Raises:
      UsageError, DataError: a data worker answers that it cannot read these data as this machine does.
    """
    alone = dataclasses.replace(reading, data_workers=())
    plan = Training(split, alone, position.seed, read)
    steps = order.steps_per_epoch(len(split), reading.batch_size)
    return _batches(plan, split, reading, first=position.epoch * steps + position.step, rows=None)


def evaluate(
    split: Split, reading: ReadOptions, *, rows: int, read: Callable[..., tf.data.Dataset]
) -> tf.data.Dataset:
    """Every record once, in batches of `rows` rows of all workers together. Raises as `train`."""
    alone = dataclasses.replace(reading, data_workers=())
    begin, end = reading.worker.part(rows)
    return _batches(Evaluation(split, alone, rows, read), split, reading, first=0, rows=end - begin)


def _batches(
    plan: Plan, split: Split, reading: ReadOptions, *, first: int, rows: int | None
) -> tf.data.Dataset:
    fleet = Fleet.of(reading.data_workers)
    fleet.require(split)
    load = HostFunction(JoinedBatches(plan, split, reading, fleet), in_turn=True)
    size = reading.decoding(split).size
    specs = [
        tf.TensorSpec((rows, *size, 3), tf.uint8),
        tf.TensorSpec((rows, 2), tf.int32),
        tf.TensorSpec((rows,), tf.int64),
        tf.TensorSpec((rows,), tf.float32),
        *[tf.TensorSpec((rows,), tf.int32)] * len(split.manifest.axes),
    ]

    @tf.autograph.experimental.do_not_convert  # nothing in it needs converting
    def batch(number: tf.Tensor) -> dict[str, Any]:
        parts = load([number], [spec.dtype for spec in specs])
        for part, spec in zip(parts, specs, strict=True):
            part.set_shape(spec.shape)
        images, seeds, records, weight, *labels = parts
        return as_batch(split, images, labels, seeds, records, weight)

    last = np.iinfo(np.int64).max if plan.count is None else plan.count
    cardinality = tf.data.INFINITE_CARDINALITY if plan.count is None else plan.count
    numbers = tf.data.Dataset.range(first, last)
    loaded = numbers.map(batch).apply(tf.data.experimental.assert_cardinality(cardinality))
    return loaded.with_options(options())
