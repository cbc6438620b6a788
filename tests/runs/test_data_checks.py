import types

import pytest

from deepduel.decoding.split import Split
from deepduel.runs import data_checks
from tests.helpers import folders
from tests.helpers.conversions import convert_to
from tfrecords_tools.errors import DataError


def test_a_class_without_images_is_named(tmp_path):
    counts = {"train/cats": 2, "train/dogs": 2, "validation/cats": 2, "validation/birds": 2}
    images = folders.make(tmp_path / "images", counts)
    assert convert_to(tmp_path / "shards", images, "--allow_missing_classes") == 0
    missing = {}
    for name in ("train", "validation"):
        split = Split(tmp_path / "shards", name)
        (axis,) = split.manifest.axes
        missing[name] = data_checks.classes_without_images(split, axis)
    assert missing == {"train": ["birds"], "validation": ["dogs"]}


def test_a_single_class_and_a_split_without_images_say_what_helps(tmp_path):
    task = types.SimpleNamespace(axis="category")
    images = folders.make(tmp_path / "images", {"cats": 1})
    assert convert_to(tmp_path / "shards", images) == 0
    with pytest.raises(DataError, match=r"a single label \(cats\), .*; convert images of another class too"):
        data_checks._check_labels(Split(tmp_path / "shards", "train"), task)
    with pytest.raises(DataError, match="has no image; convert more images, or name another split"):
        data_checks._check_labels(Split(tmp_path / "shards", "train[80%:]"), task)
