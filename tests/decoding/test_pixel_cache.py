"""The cache of decoded pixels: always the same pixels as without it, whatever happened before."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import weakref

import numpy as np
import pytest

from deepduel.decoding import batch_decoder, pixel_cache
from deepduel.decoding.cached_decoder import CachedDecoder
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.reading.options import ReadOptions
from tests.helpers.batches import numpy_batches, same, spoil
from tfrecords_tools.errors import DataError, UsageError


@pytest.fixture
def decoded(monkeypatch):
    """Record numbers that were decoded, in a list."""
    records = []
    original = batch_decoder.BatchDecoder.__call__

    def counted(self, numbers, **options):
        records.extend(numbers.tolist())
        return original(self, numbers, **options)

    monkeypatch.setattr(batch_decoder.BatchDecoder, "__call__", counted)
    return records


def read(data_dir, cache, *, epochs=1, first=0, split="train", **options):
    opened = Split(data_dir, split)
    steps = order.steps_per_epoch(len(opened), 50)
    batches = pipeline.train_batches(
        opened, ReadOptions(50, cache=cache, **options), order.Position(1, first)
    )
    return numpy_batches(batches, epochs * steps)


def finished(folder, name="train"):
    """Waits for the cache to be called complete."""
    for _ in range(100):
        documents = [json.loads(path.read_text()) for path in folder.glob(f"{name}-*.json")]
        if documents and documents[0]["complete"]:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("kind", ["ram", "decoded"])
def test_three_epochs_are_decoded_once_and_equal_the_uncached(toy_shards, tmp_path, decoded, kind):
    expected = read(toy_shards, "none", epochs=3)
    decoded.clear()
    actual = read(toy_shards, "ram" if kind == "ram" else f"decoded:{tmp_path}/c", epochs=3)
    assert same(expected, actual)
    assert set(decoded) == set(range(168))
    # The next epoch may begin while the last groups of batches, of 100 and 18 images, are being decoded.
    assert len(decoded) <= 168 + 100 + 18


def test_a_second_opening_decodes_nothing(toy_shards, tmp_path, decoded):
    first = read(toy_shards, f"decoded:{tmp_path}")
    assert finished(tmp_path)
    decoded.clear()
    assert same(first, read(toy_shards, f"decoded:{tmp_path}"))
    assert not decoded


def test_the_memory_of_decoding_is_given_back_once_all_is_there(toy_shards):
    split = Split(toy_shards, "train")
    decode_all = batch_decoder.BatchDecoder(split, DecodeOptions((32, 32)))
    cache = pixel_cache.RamCache(split, DecodeOptions((32, 32)))
    cached = CachedDecoder(split, cache, decode_all, (32, 32))
    first = cached(np.arange(168))
    memory = weakref.ref(first.base)
    pixels = first.copy()
    del first
    assert memory() is not None  # kept for the next batch
    assert (cached(np.arange(168)) == pixels).all()
    assert memory() is None


def test_evaluation_uses_it_too_padding_stays_black(toy_shards, tmp_path, decoded):
    split = Split(toy_shards, "validation")
    expected = numpy_batches(pipeline.eval_batches(split, ReadOptions(50)))
    reading = ReadOptions(50, cache=f"decoded:{tmp_path}")
    assert same(expected, numpy_batches(pipeline.eval_batches(split, reading)))
    decoded.clear()
    assert same(expected, numpy_batches(pipeline.eval_batches(split, reading)))
    assert not decoded


def test_another_decoding_is_another_cache(toy_shards, tmp_path):
    read(toy_shards, f"decoded:{tmp_path}")
    assert same(
        read(toy_shards, f"decoded:{tmp_path}", size=(16, 20)), read(toy_shards, "none", size=(16, 20))
    )
    assert len(list(tmp_path.glob("*.pixels"))) == 2


def test_a_stale_cache_is_removed_and_built_anew(toy_shards, tmp_path):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    read(folder, f"decoded:{tmp_path}/cache")
    before = list((tmp_path / "cache").glob("*.pixels"))
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    document["splits"]["train"]["shards"][0]["sha256"][""] = "0" * 64
    del document["checksum"]
    from tfrecords_tools.format import manifest

    path.write_text(json.dumps(document | {"checksum": manifest._checksum(document)}))
    assert same(read(folder, f"decoded:{tmp_path}/cache"), read(toy_shards, "none"))
    after = list((tmp_path / "cache").glob("*.pixels"))
    assert len(before) == len(after) == 1
    assert before != after


def test_what_was_begun_before_the_last_boot_is_begun_anew_unless_complete(toy_shards, tmp_path, decoded):
    read(toy_shards, f"decoded:{tmp_path}")
    assert finished(tmp_path)
    about = next(tmp_path.glob("*.json"))
    document = json.loads(about.read_text())
    about.write_text(json.dumps(document | {"boot": "another"}))
    decoded.clear()
    read(toy_shards, f"decoded:{tmp_path}")
    assert not decoded
    next(tmp_path.glob("*.pixels")).write_bytes(bytes(168 * 32 * 32 * 3))  # what a power cut may leave
    about.write_text(json.dumps(document | {"boot": "another", "complete": False}))
    assert same(read(toy_shards, f"decoded:{tmp_path}"), read(toy_shards, "none"))


def test_files_of_another_length_are_not_used(toy_shards, tmp_path):
    read(toy_shards, f"decoded:{tmp_path}")
    assert finished(tmp_path)
    os.truncate(next(tmp_path.glob("*.pixels")), 1000)
    assert same(read(toy_shards, f"decoded:{tmp_path}"), read(toy_shards, "none"))


@pytest.mark.slow
def test_two_processes_fill_one_cache_and_a_killed_one_leaves_no_wrong_row(toy_shards, tmp_path):
    program = """
        import itertools, sys
        from deepduel import order, pipeline
        from deepduel.reading.options import ReadOptions
        from deepduel.decoding.split import Split
        reading = ReadOptions(8, cache="decoded:" + sys.argv[2])
        position = order.Position(int(sys.argv[3]))
        batches = pipeline.train_batches(Split(sys.argv[1], "train"), reading, position)
        for number, batch in enumerate(batches):
            print(number, flush=True)
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(toy_shards), str(tmp_path)]
    running = [subprocess.Popen([*words, seed], stdout=subprocess.PIPE, text=True) for seed in "01"]
    for process in running:
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert same(read(toy_shards, f"decoded:{tmp_path}", epochs=2), read(toy_shards, "none", epochs=2))


def test_bad_records_stay_bad_for_the_next_process(toy_shards, tmp_path):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    spoil(folder, 5, 90)
    for _ in range(2):
        batches = read(folder, f"decoded:{tmp_path}/cache", on_error="skip")
        weights = np.concatenate([batch["weight"] for batch in batches])
        records = np.concatenate([batch["records"] for batch in batches])
        assert sorted(records[weights == 0]) == [5, 90]
        assert finished(tmp_path / "cache")


def test_no_room_is_refused_in_one_line(toy_shards, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        DataError, match=r"decoded images take 0\.0 GB, .* free on the disk; use another cache"
    ):
        read(toy_shards, f"decoded:{tmp_path}")
    assert not list(tmp_path.glob("*.pixels"))
    monkeypatch.setattr(pixel_cache, "_RAM_SHARE", 0)
    with pytest.raises(DataError, match="cache ram: .* of memory available"):
        read(toy_shards, "ram")


def test_a_folder_that_cannot_be_made_is_named(toy_shards, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache .*file/c: Not a directory; use another cache"):
        read(toy_shards, f"decoded:{tmp_path}/file/c")


def test_a_cache_cut_short_in_use_is_an_error(toy_shards, tmp_path):
    cache = pixel_cache.open_cache(f"decoded:{tmp_path}", Split(toy_shards, "train"), DecodeOptions((32, 32)))
    cache.write(167, np.ones((32, 32, 3), np.uint8))
    cache.check()
    row = np.empty((1, 32, 32, 3), np.uint8)
    cache.read(np.array([167]), row)
    assert (row == 1).all()
    os.truncate(next(tmp_path.glob("*.pixels")), 100)
    with pytest.raises(DataError, match="was truncated while it was in use"):
        cache.check()


def test_a_row_written_while_others_are_looked_up_stays_known(toy_shards, tmp_path, monkeypatch):
    cache = pixel_cache.open_cache(f"decoded:{tmp_path}", Split(toy_shards, "train"), DecodeOptions((32, 32)))
    read_states = os.pread

    def raced(*where):
        states = read_states(*where)
        cache.write(7, np.ones((32, 32, 3), np.uint8))
        return states

    monkeypatch.setattr(pixel_cache.os, "pread", raced)
    assert not cache.has(np.array([7, 8])).all()
    monkeypatch.undo()
    monkeypatch.setattr(cache, "_refresh", lambda: None)
    assert cache.has(np.array([7])).all()


@pytest.mark.parametrize("text", ["", "disk", "decoded:", "decoded"])
def test_an_unknown_cache_is_refused(text):
    with pytest.raises(UsageError, match="cache must be none, ram or decoded:PATH"):
        ReadOptions(8, cache=text)


def test_the_sequential_reader_refuses_a_cache():
    with pytest.raises(UsageError, match="cache=ram needs reader=random"):
        ReadOptions(8, cache="ram", reader="sequential")


def test_another_library_that_resamples_has_a_cache_of_its_own(toy_shards, tmp_path, monkeypatch):
    options = DecodeOptions((16, 16))
    pixel_cache.FileCache(tmp_path, Split(toy_shards, "train"), options)
    monkeypatch.setattr(pixel_cache, "libraries", lambda: {"decoder": "1.8.1", "resizer": "Pillow 12.0.0"})
    pixel_cache.FileCache(tmp_path, Split(toy_shards, "train"), options)
    assert len(list(tmp_path.glob("train-*.pixels"))) == 2
