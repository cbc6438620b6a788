"""Shards in an object store: as few requests as blocks, the local copy, and requests that fail."""

import concurrent.futures
import errno
import os
import shutil
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from deepduel.decoding.remote_cache import parse
from deepduel.decoding.remote_shards import RemoteShards
from deepduel.decoding.split import Split
from tests.helpers.object_store import ObjectStore, upload
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest, storage

BLOCK = 4096


@pytest.fixture
def url(toy_shards):
    return upload(toy_shards)


@pytest.fixture
def opened(url):
    """Opens the shards; at the end no request of the test is under way."""
    readers = []

    def open_shards(url: str, cache: str, **options) -> RemoteShards:
        shards = manifest.load(url).splits["train"].shards
        ObjectStore.requests.clear()
        readers.append(RemoteShards(storage.open_folder(url), shards, cache, block=BLOCK, **options))
        return readers[-1]

    yield open_shards
    for reader in readers:
        reader.close()


@pytest.fixture(scope="module")
def spans(toy_shards):
    """Places of all images of the training split, in a random order, and their bytes."""
    split = Split(toy_shards, "train")
    records = np.random.default_rng(0).permutation(len(split))
    return split.image_places(records), split.images(records)


@pytest.fixture(scope="module")
def blocks(toy_shards):
    return sum(-(-shard.bytes // BLOCK) for shard in manifest.load(toy_shards).splits["train"].shards)


@pytest.mark.parametrize("cache", ["auto", "ram", "ram:1GB", "none"])
def test_spans_are_those_of_the_local_shards(opened, url, spans, cache):
    places, encoded = spans
    assert opened(url, cache).read(*places) == encoded


def test_an_epoch_makes_one_request_per_block_and_the_next_makes_none(opened, url, spans, blocks):
    places, encoded = spans
    shards = opened(url, "auto")
    for start in range(0, len(encoded), 16):
        part = [column[start : start + 16] for column in places]
        assert shards.read(*part) == encoded[start : start + 16]
    assert len(ObjectStore.requests) == blocks == shards.requests
    assert shards.read(*places) == encoded
    assert shards.requests == blocks


def test_requests_are_made_many_at_a_time(opened, url, spans):
    places, encoded = spans
    ObjectStore.delay = 0.02
    for cache in ("auto", "none"):
        ObjectStore.most_at_once = 0
        start = time.monotonic()
        assert opened(url, cache).read(*places) == encoded
        assert ObjectStore.most_at_once > 8
        assert time.monotonic() - start < len(encoded) * 0.02 / 4


def test_threads_that_read_at_once_share_the_requests(opened, url, spans, blocks):
    places, encoded = spans
    shards = opened(url, "ram")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda _: shards.read(*places), range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert read == [encoded] * 8
    assert shards.requests == blocks


def test_a_disk_that_is_full_at_the_start_is_said(opened, url, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        DataError, match=r"\.sums: cannot be written \(No space left on device\); set remote_cache"
    ):
        opened(url, str(tmp_path))


def test_a_folder_keeps_the_blocks_for_later_readers(opened, url, spans, blocks, tmp_path):
    places, encoded = spans
    folder = tmp_path / "kept"
    assert opened(url, str(folder)).read(*places) == encoded
    later = opened(url, str(folder))
    assert later.read(*places) == encoded
    assert later.requests == 0
    assert [path.suffix for path in sorted(folder.iterdir())] == [".blocks", ".sums"]


def test_a_damaged_block_is_requested_again(opened, url, spans, tmp_path):
    places, encoded = spans
    opened(url, str(tmp_path)).read(*places)
    file = next(tmp_path.glob("*.blocks"))
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    later = opened(url, str(tmp_path))
    assert later.read(*places) == encoded
    assert later.requests == 1


def test_shards_without_room_take_a_request_per_image_and_it_is_said(opened, url, spans, tmp_path, capsys):
    places, encoded = spans
    first = manifest.load(url).splits["train"].shards[0].bytes
    shards = opened(url, f"{tmp_path}:{first}")
    assert shards.kept == 1
    warning = capsys.readouterr().err
    assert "each image of 2 of the 3 shards takes a request" in warning and "FOLDER:SIZE" in warning
    assert shards.read(*places) == encoded
    assert shards.requests == -(-first // BLOCK) + int((places[0] > 0).sum())
    assert next(tmp_path.glob("*.blocks")).stat().st_size <= first


def test_a_disk_that_becomes_full_costs_a_request_per_image_and_it_is_said(
    opened, url, spans, blocks, tmp_path, monkeypatch, capsys
):
    """It takes 5 blocks and a part of another."""
    places, encoded = spans
    write, room, one_at_a_time = os.pwrite, 5 * BLOCK + 100, threading.Lock()

    def until_full(file, data, place):
        nonlocal room
        with one_at_a_time:
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = write(file, data[:room], place)
            room -= written
        return written

    monkeypatch.setattr(os, "pwrite", until_full)
    shards = opened(url, str(tmp_path))
    for _ in range(2):
        assert shards.read(*places) == encoded
    assert shards.requests > blocks
    assert capsys.readouterr().err.count("the disk has no more room for the local copy") == 1
    monkeypatch.undo()
    later = opened(url, str(tmp_path))
    assert later.read(*places) == encoded
    assert blocks - 6 <= later.requests <= blocks - 4


def test_however_many_processes_have_local_copies_half_of_the_free_space_stays_free(
    opened, url, spans, blocks, monkeypatch, capsys
):
    places, encoded = spans
    stored = sum(shard.bytes for shard in manifest.load(url).splits["train"].shards)
    free, written, write = int(2.4 * stored), [], os.pwrite  # one copy has room, a second one partly

    def statistics(file):
        return SimpleNamespace(f_bavail=free - sum(written), f_frsize=1)

    def counted(file, data, place):
        written.append(len(data))
        return write(file, data, place)

    monkeypatch.setattr("deepduel.decoding.remote_shards.REQUESTS", 1)  # else many look at once, then write
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    readers = [opened(url, "auto") for _ in range(3)]
    monkeypatch.setattr(os, "fstatvfs", statistics)
    monkeypatch.setattr(os, "pwrite", counted)
    for reader in readers:
        assert reader.read(*places) == encoded
    assert free // 2 - BLOCK < sum(written) <= free // 2 + 2 * BLOCK
    assert capsys.readouterr().err.count("the disk has no more room") == 2


def test_a_request_that_fails_is_repeated(opened, url, spans):
    places, encoded = spans
    shards = opened(url, "auto")
    ObjectStore.failures += [ConnectionError("reset")] * 2
    assert shards.read(*(column[:1] for column in places)) == encoded[:1]


def test_requests_that_keep_failing_name_the_object(opened, url, spans):
    shards = opened(url, "none")
    ObjectStore.failures += [ConnectionError("reset by peer")] * 50
    with pytest.raises(DataError, match=r"train\.tfrecord-0000\d-of-00003, byte [\d,]+: .*reset by peer"):
        shards.read(*(column[:1] for column in spans[0]))


def test_a_block_whose_request_failed_is_requested_by_the_next_read(opened, url, spans):
    places, encoded = spans
    shards = opened(url, "auto")
    ObjectStore.failures += [PermissionError("expired")] * 20
    with pytest.raises(DataError, match="expired"):
        shards.read(*(column[:1] for column in places))
    while ObjectStore.at_once:  # the blocks ahead fail too
        time.sleep(0.05)
    ObjectStore.failures.clear()
    assert shards.read(*places) == encoded


def test_a_request_that_takes_long_is_made_once_more(opened, url, spans):
    places, encoded = spans
    shards = opened(url, "auto", slow=0.1)
    ObjectStore.failures += [lambda: time.sleep(3)]
    start = time.monotonic()
    assert shards.read(*(column[:1] for column in places)) == encoded[:1]
    assert time.monotonic() - start < 2


def test_an_object_that_has_vanished_is_named(opened, url, spans):
    shards = opened(url, "auto")
    name = manifest.load(url).splits["train"].shards[2].file
    ObjectStore().rm_file(f"{url}/{name}")
    with pytest.raises(DataError, match=f"{name}: this object no longer exists"):
        shards.read(np.array([2]), np.array([0]), np.array([100]))


def test_opening_a_split_makes_one_listing_and_a_request_per_table(url):
    split = Split(url, "train")
    kinds = [start for _, start, _ in ObjectStore.requests]
    assert kinds.count("ls") == 1
    assert len(kinds) <= len(split.shards) + 4  # manifest.json, and whether the folder exists


@pytest.mark.parametrize("spec", ["", "auto:3GB", "none:1", "ram:3XB"])
def test_a_cache_that_is_none_is_refused(spec):
    with pytest.raises(UsageError, match="remote_cache must be"):
        parse(spec)


def test_sizes_and_places():
    assert parse("/a:b/c:1.5tb") == ("/a:b/c", 1_500_000_000_000)
    assert parse("/a/b") == ("/a/b", None)
    assert parse("ram:200M") == ("ram", 200_000_000)
    assert parse("C:7") == ("C", 7)
