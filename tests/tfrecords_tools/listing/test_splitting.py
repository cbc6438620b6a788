import numpy as np
import pytest

from tests.helpers import folders
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools.format import manifest
from tfrecords_tools.listing import folder, splitting

SHARES = splitting.Shares("train:0.9,validation:0.05,test:0.05")


def touched(root, counts):
    """A listing of files that are images by name only."""
    for directory, count in counts.items():
        (root / directory).mkdir(parents=True)
        for number in range(count):
            (root / directory / f"{number}.jpg").write_bytes(b"x")
    return folder.scan(root)


def content_of(listing, same=()):
    """A hash per image; those of `same` have one hash."""
    content = np.arange(2 * len(listing), dtype=np.uint64).reshape(-1, 2)
    content[list(same)] = 7
    return content


@pytest.mark.parametrize("seed", range(5))
def test_each_class_of_enough_images_is_in_each_split(tmp_path, seed):
    listing = touched(tmp_path, {"a": 3, "b": 4, "c": 60, "d": 2})
    every = np.ones(len(listing), bool)
    split = splitting.assign(listing, SHARES, content_of(listing), seed, every_class=every)
    for label, count in enumerate((3, 3, 3)):
        assert len(set(split.split[split.labels[:, 0] == label].tolist())) == count


def test_only_images_of_uncovered_classes_move(tmp_path):
    listing = touched(tmp_path, {"a": 3, "c": 400})
    by_hash = splitting.assign(listing, SHARES, content_of(listing), 0)
    covered = splitting.assign(
        listing, SHARES, content_of(listing), 0, every_class=np.ones(len(listing), bool)
    )
    moved = np.flatnonzero(by_hash.split != covered.split)
    assert 0 < len(moved) <= 2 and (listing.labels[moved] == 0).all()


def test_copies_stay_together_also_where_a_class_would_miss_a_split(tmp_path):
    listing = touched(tmp_path, {"a": 4, "b": 4})
    same = [0, 1, 2, 3, 4]  # all of a, and one of b
    split = splitting.assign(
        listing, SHARES, content_of(listing, same), 0, every_class=np.ones(len(listing), bool)
    )
    assert len(set(split.split[same].tolist())) == 1


def test_many_classes_are_split_in_time_that_grows_with_their_number():
    labels = np.repeat(np.arange(4_000, dtype=np.int32), 3)[:, None]
    places = np.random.default_rng(0).random(len(labels))
    bounds = np.array([0.9, 0.95, 1.0])
    split = np.searchsorted(bounds, places, side="right").astype(np.int16)
    splitting._cover_classes(
        labels, split, places, np.arange(len(labels)), bounds, np.ones(len(labels), bool)
    )
    assert (np.sort(split.reshape(-1, 3), axis=1) == [0, 1, 2]).all()


def test_a_split_without_images_is_an_error_that_names_it(tmp_path, capsys):
    images = folders.make(tmp_path / "in", {"cat": 1, "dog": 1})
    assert convert_to(tmp_path / "out", images, f"--split={SHARES.text}") == 1
    assert "split 'test' gets none of the 2 images" in capsys.readouterr().err


def test_a_split_emptied_by_duplicates_is_an_error_that_names_it(tmp_path, capsys):
    images = folders.make(tmp_path / "in", {"test/cat": 2, "test/dog": 2})
    for name in ("cat", "dog"):
        (images / "train" / name).mkdir(parents=True)
        for path in (images / "test" / name).iterdir():
            (images / "train" / name / path.name).write_bytes(path.read_bytes())
    assert convert_to(tmp_path / "out", images, "--drop_duplicates=across_splits") == 1
    assert "no image is left in split 'train'" in capsys.readouterr().err


def test_the_copy_in_training_set_is_dropped_and_the_one_in_test_set_stays(tmp_path):
    images = folders.make(
        tmp_path / "in", {f"{s}/{c}": 3 for s in ("training_set", "test_set") for c in "ab"}
    )
    (images / "training_set/a/same.jpg").write_bytes((images / "test_set/a/0.jpg").read_bytes())
    assert convert_to(tmp_path / "out", images, "--drop_duplicates=across_splits") == 0
    assert {"training_set/a/same.jpg", "test_set/a/0.jpg"} & set(stored(tmp_path / "out")) == {
        "test_set/a/0.jpg"
    }


def test_duplicates_of_a_split_of_unknown_kind_are_refused(tmp_path, capsys):
    images = folders.make(tmp_path / "in", {"part1/a": 2, "part1/b": 2, "test/a": 2, "test/b": 2})
    words = "--layout={split}/{category}", "--drop_duplicates=across_splits"
    assert convert_to(tmp_path / "out", images, *words) == 1
    assert "the name of the split 'part1' does not say which it is" in capsys.readouterr().err


def test_repair_and_append_of_a_covered_split_write_what_was_there(tmp_path):
    images = folders.make(tmp_path / "in", {"cat": 3, "dog": 12})
    words = (f"--split={SHARES.text}", "--name=pets")
    assert convert_to(tmp_path / "out", images, *words) == 0
    folders.make(tmp_path / "more", {"cat": 6, "dog": 20})
    for path in sorted((tmp_path / "more").rglob("*.jpg"))[-8:]:
        path.rename(images / "dog" / f"added{path.name}")
    assert convert_to(tmp_path / "out", images, "--append", *words) == 0
    before = folders.sums(tmp_path / "out")
    first = manifest.load(tmp_path / "out").splits["train"].shards[0].file
    (tmp_path / "out" / first).write_bytes(b"damaged")
    assert convert_to(tmp_path / "out", images, "--repair", *words) == 0
    assert folders.sums(tmp_path / "out") == before
