"""Batches from the parts that data workers send, by number; the data workers may come and go meanwhile."""

import functools
import itertools
import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.buffers import BatchBuffers
from deepduel.decoding.split import Split
from deepduel.reading import data_protocol as protocol
from deepduel.reading import order
from deepduel.reading.ahead import Ahead
from deepduel.reading.batch import batch_arrays
from deepduel.reading.data_connection import Connected, LostPart
from deepduel.reading.data_fleet import Fleet
from deepduel.reading.options import ReadOptions
from tfrecords_tools import host_cpus


class Plan(Protocol):
    """Which batches there are, by number."""

    @property
    def count(self) -> int | None:
        """How many there are in all; None: without end."""

    def rows(self, number: int) -> int:
        """Rows of a batch, of all workers together."""

    def request(self, number: int, part: order.Worker) -> protocol.Request:
        """Asks for a part of the batches from a number on."""

    def local(self, number: int) -> tf.data.Dataset:
        """The batches from a number on, as this machine reads them."""

    def place(self, number: int) -> str:
        """Where a batch is, in words."""


class JoinedBatches:
    """Callable: the number of a batch -> its arrays, from the data workers or, without any, from here.

    Numbers are expected one after the other; at any other one the reading begins anew.
    """

    def __init__(self, plan: Plan, split: Split, reading: ReadOptions, fleet: Fleet) -> None:
        self._plan = plan
        self._split = split
        self._reading = reading
        self._fleet = fleet
        self._receive = functools.partial(_receive, plan, split, reading, BatchBuffers())
        self._stream: Ahead[list[np.ndarray]] | None = None
        self._all = True  # whether the stream comes from all data workers
        self._next = -1
        self._lock = threading.Lock()

    def __call__(self, number: np.ndarray) -> list[np.ndarray]:
        with self._lock:
            return self._batch(int(number))

    def _batch(self, number: int) -> list[np.ndarray]:
        if self._stream is None or number != self._next or not self._all and self._fleet.returned():
            self._open(number)
        lost_here: set[protocol.Address] = set()
        while True:
            assert self._stream is not None
            try:
                arrays = self._stream.get()
            except LostPart as lost:
                address = lost.connected.address
                # One that greets and then ends, again and again, would keep the batch from ever coming.
                for_good = lost.for_good or address in lost_here
                self._fleet.leave_out(lost.connected, str(lost), for_good=for_good)
                lost_here.add(address)
                self._open(number)
                continue
            except tf.errors.OpError as error:
                raise bad_records.data_error(error) or error from error
            if arrays is None:
                raise RuntimeError(f"no batch {number}: the data set has ended")
            self._next = number + 1
            self._report_bad(arrays)
            return arrays

    def _open(self, number: int) -> None:
        """Begins to read at a batch, on the data workers that answer."""
        if self._stream is not None:
            self._stream.close()
        connections = self._fleet.connect(self._split, place=self._plan.place(number))
        self._all = len(connections) == len(self._fleet.addresses)
        if not connections:
            self._stream = Ahead(functools.partial(_locally, self._plan, number))
            return
        self._stream = Ahead(
            functools.partial(self._receive, connections, number),
            unblock=lambda: _hang_up(connections),
        )

    def _report_bad(self, arrays: list[np.ndarray]) -> None:
        _, _, records, weight, *_ = arrays
        if self._reading.on_error == "skip" and not weight.all():
            for record in records[(weight == 0) & (records >= 0)].tolist():
                bad_records.report(self._split, record, "on a data worker", on_error="skip")


def _locally(plan: Plan, number: int) -> Iterator[list[np.ndarray]]:
    """The batches as this machine reads them, on threads of their own.

    The call that waits for a batch occupies one of TensorFlow's threads, of which there are as many as cores.
    """
    own_threads = tf.data.Options()
    own_threads.threading.private_threadpool_size = host_cpus.available()
    yield from batch_arrays(plan.local(number).with_options(own_threads))


def _hang_up(connections: list[Connected]) -> None:
    for connected in connections:
        connected.hang_up()


def _receive(
    plan: Plan,
    split: Split,
    reading: ReadOptions,
    buffers: BatchBuffers,
    connections: list[Connected],
    first: int,
) -> Iterator[list[np.ndarray]]:
    """The batches from number `first` on, from connections that wait for a request."""
    outer, count = reading.worker, len(connections)
    parts = [order.Worker(outer.index * count + index, outer.count * count) for index in range(count)]
    size, axes = reading.decoding(split).size, len(split.manifest.axes)
    try:
        for connected, part in zip(connections, parts, strict=True):
            connected.ask(plan.request(first, part))
        for number in itertools.count(first) if plan.count is None else range(first, plan.count):
            total = plan.rows(number)
            begin, end = outer.part(total)
            rows = end - begin
            arrays = [
                buffers.take((rows, *size, 3)).pixels,
                np.empty((rows, 2), np.int32),
                np.empty(rows, np.int64),
                np.empty(rows, np.float32),
                *[np.empty(rows, np.int32) for _ in range(axes)],
            ]
            for connected, part in zip(connections, parts, strict=True):
                start, stop = part.part(total)
                connected.receive([array[start - begin : stop - begin] for array in arrays])
            yield arrays
            del arrays
    finally:
        for connected in connections:
            connected.close()
