"""`train[:80%]` and `train[80%:]`: disjoint, complete, alike in every class, and the same for ever."""

import shutil

import numpy as np
import pytest

from deepduel.decoding import parts
from deepduel.decoding.split import Split
from tests.helpers import folders
from tests.helpers.conversions import convert_to
from tfrecords_tools.errors import UsageError

TRAINED, HELD_OUT = "train[:80%]", "train[80%:]"


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory):
    return folders.make(tmp_path_factory.mktemp("parts") / "images", {"cats": 20, "dogs": 10, "owls": 2})


@pytest.fixture(scope="module")
def shards(class_folders):
    assert convert_to(class_folders.parent / "shards", class_folders) == 0
    return class_folders.parent / "shards"


def _keys(data_dir, name: str) -> set[bytes]:
    split = Split(data_dir, name)
    return {split.key(record) for record in range(len(split))}


def test_the_parts_are_disjoint_and_hold_every_image(shards):
    trained, held_out = _keys(shards, TRAINED), _keys(shards, HELD_OUT)
    assert not trained & held_out
    assert trained | held_out == _keys(shards, "train")


def test_each_class_is_divided_alike_and_is_in_both_parts(shards):
    counts = [np.bincount(Split(shards, name).labels["category"]).tolist() for name in (TRAINED, HELD_OUT)]
    assert counts == [[16, 8, 1], [4, 2, 1]]


def test_a_record_of_a_part_is_the_one_of_its_number_in_the_whole_split(shards):
    part, whole = Split(shards, HELD_OUT), Split(shards, "train")
    by_key = {whole.key(record): record for record in range(len(whole))}
    for record in range(len(part)):
        same = by_key[part.key(record)]
        assert part.image(record) == whole.image(same)
        assert part.place(record) == whole.place(same)
        assert part.labels["category"][record] == whole.labels["category"][same]
    assert part.name == HELD_OUT and parts.others(part) == [TRAINED] and parts.others(whole) == []


def test_copies_of_an_image_are_in_one_part(class_folders, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(class_folders, images)
    for name in ("cats", "dogs"):
        for path in list((images / name).iterdir()):
            shutil.copy(path, path.with_name(f"copy of {path.name}"))
    assert convert_to(tmp_path / "shards", images) == 0
    held_out = {key.replace(b"copy of ", b"") for key in _keys(tmp_path / "shards", HELD_OUT)}
    trained = {key.replace(b"copy of ", b"") for key in _keys(tmp_path / "shards", TRAINED)}
    assert held_out and not held_out & trained


def test_appended_images_move_no_other(class_folders, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(class_folders, images)
    assert convert_to(tmp_path / "shards", images) == 0
    before = _keys(tmp_path / "shards", TRAINED), _keys(tmp_path / "shards", HELD_OUT)
    more = folders.make(tmp_path / "more", {"cats": 25})
    for path in sorted((more / "cats").iterdir())[-10:]:
        shutil.copy(path, images / "cats" / f"new {path.name}")
    assert convert_to(tmp_path / "shards", images, "--append") == 0
    after = _keys(tmp_path / "shards", TRAINED), _keys(tmp_path / "shards", HELD_OUT)
    assert before[0] <= after[0] and before[1] <= after[1]
    assert len(after[0]) > len(before[0]) and len(after[1]) > len(before[1])


def test_names_of_parts():
    assert parts.parse("train") is None
    assert str(parts.parse("train[:80%]")) == "train[:80%]"
    assert str(parts.parse("train[:80%]").other) == "train[80%:]"


@pytest.mark.parametrize(
    "name", ["train[]", "train[80]", "train[10%:80%]", "train[0%:]", "train[:100%]", "[:5%]"]
)
def test_other_brackets_are_a_usage_error(name):
    with pytest.raises(UsageError, match=r"written like train\[:80%\]"):
        parts.parse(name)
