"""What the system is asked for before it is read: all shards once, or each batch's images."""

import os
import threading
import types

import numpy as np
import pytest

from deepduel.decoding import host_memory, read_ahead, worker_pool
from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.reading.options import ReadOptions


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, int, int]]:
    """(shard, start, bytes) of each request."""
    requests = []

    def advise(file, start, size, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        requests.append((os.path.basename(os.readlink(f"/proc/self/fd/{file}")), start, size))  # noqa: PTH115, PTH119, as it is read by eye

    monkeypatch.setattr(os, "posix_fadvise", advise)
    # In this module alone: the thread that waits for the decoding processes ends only when they do.
    at_once = types.SimpleNamespace(Thread=AtOnce, Lock=threading.Lock)
    monkeypatch.setattr(read_ahead, "threading", at_once)
    return requests


class AtOnce:
    """A thread that has ended when it has been started."""

    def __init__(self, target, **_):
        self.start = target


def test_all_shards_are_asked_for_once_where_memory_has_room(toy_shards, asked, monkeypatch):
    monkeypatch.setattr("deepduel.decoding.split._AHEAD_BYTES", 5_000)
    split = Split(toy_shards, "train")
    ahead = read_ahead.ReadAhead(split)
    assert not asked
    ahead(np.arange(8))
    ahead(np.arange(8, 16))
    for shard in split.shards:
        starts = [start for name, start, _ in asked if name == shard.file]
        assert starts == list(range(0, shard.bytes, 5_000))
    assert len({name for name, _, _ in asked}) == len(split.shards)


def test_each_batch_asks_for_its_images_where_it_has_not(toy_shards, asked, monkeypatch):
    split = Split(toy_shards, "train")
    stored = sum(shard.bytes for shard in split.shards)
    monkeypatch.setattr(host_memory, "available_bytes", lambda: int(1.9 * stored))
    ahead = read_ahead.ReadAhead(split)
    for records in (np.array([160, 3, 90]), np.array([7])):
        ahead(records)
        shards, starts, sizes = split.image_places(records)
        wanted = [
            (split.shards[shard].file, start, size)
            for shard, start, size in zip(*(c.tolist() for c in (shards, starts, sizes)), strict=True)
        ]
        assert asked == wanted
        asked.clear()


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_the_reader_asks_before_it_decodes_and_not_for_what_is_cached(toy_shards, asked, monkeypatch, cache):
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 1 if cache == "none" else 1 << 40)
    monkeypatch.setattr(worker_pool, "STARTS_AFTER", 0)  # as after other tests that have decoded much
    split = Split(toy_shards, "train")
    reading = ReadOptions(56, cache=cache)
    batches = iter(pipeline.train_batches(split, reading, order.Position()))
    for _ in range(3):  # an epoch
        next(batches)
    if cache == "none":
        assert len(asked) >= 168
    else:
        first = len(asked)
        for _ in range(6):
            next(batches)
        assert first == len(asked) == len(split.shards)


def test_advice_that_is_not_taken_or_not_known_changes_nothing(toy_shards, monkeypatch):
    def refuse(*_):
        raise OSError("no such advice")

    split = Split(toy_shards, "validation")
    expected = [batch["images"].numpy() for batch in pipeline.eval_batches(split, ReadOptions(16))]
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 1)
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    refused = [batch["images"].numpy() for batch in pipeline.eval_batches(split, ReadOptions(16))]
    monkeypatch.delattr(os, "posix_fadvise")  # macOS
    unknown = [batch["images"].numpy() for batch in pipeline.eval_batches(split, ReadOptions(16))]
    assert all(np.array_equal(*rows) for rows in zip(expected, refused, strict=True))
    assert all(np.array_equal(*rows) for rows in zip(expected, unknown, strict=True))
