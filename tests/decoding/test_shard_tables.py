import dataclasses
import shutil

import numpy as np
import pytest

from deepduel.decoding import host_memory, shard_tables
from deepduel.decoding.split import Split
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import storage


@pytest.fixture
def change(toy_shards, tmp_path):
    """Changes a column of row 5 in the first table of a copy of the folder, and returns the copy."""
    copy = shutil.copytree(toy_shards, tmp_path / "shards")
    (path,) = copy.glob("*-train.*-00000-of-00003.npy")

    def changed(**values):
        table = np.load(path)
        for name, value in values.items():
            table[5][name] = value
        np.save(path, table)
        return copy

    return changed


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"labels": (2, 0)}, "row 5 has the label of authenticity 2, not -1 to 1"),
        ({"labels": (0, 7)}, "row 5 has the label of category 7, not -1 to 2"),
        ({"labels": (-2, 0)}, "row 5 has the label of authenticity -2, not -1 to 1"),
        ({"encoding": 77}, "row 5 has the encoding 77, not 0 to 2"),
        ({"encoding": -1}, "row 5 has the encoding -1"),
        ({"encoding": 2}, "row 5 has a raw image of another size than its bytes"),
        ({"height": 0}, "row 5 has the height 0, not 1 to"),
        ({"width": 2**31 - 1}, "row 5 has the width 2147483647, not 1 to"),
        ({"width": -(2**31)}, "row 5 has the width -2147483648, not 1 to"),
        ({"height": 60_000, "width": 60_000}, "row 5 has 3,600,000,000 pixels, more than 100,000,000"),
        ({"offset": -1}, "row 5 has the offset -1, not 0 to"),
        ({"offset": 2**62}, "row 5 has the offset 4611686018427387904, not 0 to"),
        ({"size": 2**63 - 1}, "row 5 has the size 9223372036854775807, not 0 to"),
        ({"image_offset": 0}, "row 5 has an image before its record"),
        ({"image_size": 2_000}, "row 5 has an image beyond its record"),
    ],
)
def test_a_row_out_of_range_is_named_when_the_split_is_opened(change, values, reason):
    folder = change(**values)
    with pytest.raises(DataError, match="00000-of-00003.npy: ") as raised:
        Split(folder, "train")
    assert reason in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_record_that_ends_beyond_its_shard_is_named(change, toy_shards):
    size = Split(toy_shards, "train").shards[0].bytes
    with pytest.raises(DataError, match="row 5 has an end past that of its shard"):
        Split(change(size=size - 5), "train")


def test_sound_tables_are_read(change, toy_shards):
    assert (Split(change(labels=(-1, 2)), "train").labels["authenticity"][5]) == -1
    assert len(Split(toy_shards, "train")) == 168


def test_more_records_than_memory_holds_are_refused_before_they_are_read(toy_shards, monkeypatch):
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 10**9)
    split = Split(toy_shards, "train")
    claimed = [dataclasses.replace(shard, records=10**8) for shard in split.shards]
    with pytest.raises(DataError, match="the tables of 300,000,000 records take 13.5 GB, but only 1.0 GB of"):
        next(shard_tables.read(storage.open_folder(toy_shards), claimed, split.manifest.axes))
