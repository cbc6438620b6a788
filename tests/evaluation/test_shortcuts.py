"""Shortcuts: the alarm is raised where a feature gives the labels away, and only there."""

import io

import numpy as np
import pytest
from PIL import Image

from deepduel.decoding.split import Split
from deepduel.evaluation import shortcuts
from tests.conftest import run_command
from tfrecords_tools import convert


def _jpeg(rng, *, quality=90, size=(24, 24), tint=0, subsampling=0) -> bytes:
    pixels = rng.integers(60, 180, (*size, 3)) + np.array([tint, 0, 0])
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return stream.getvalue()


def _shards(folder, fake: dict, real: dict, count=60) -> Split:
    rng = np.random.default_rng(0)
    for number in range(count):
        for name, look in (("real", real), ("fake", fake)):
            path = folder / "images" / "validation" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_jpeg(rng, **look))
    words = f"--input_dir={folder / 'images'}", f"--output_dir={folder / 'shards'}", "--workers=1"
    assert run_command(convert, *words) == 0
    return Split(folder / "shards", "validation")


def _document(split: Split, accuracy: float) -> dict:
    colours = np.zeros((len(split), 6))
    for number in range(len(split)):
        pixels = np.asarray(Image.open(io.BytesIO(split.image(number))), float)
        colours[number] = [*pixels.mean((0, 1)), *pixels.std((0, 1))]
    labels = split.labels["authenticity"]
    return shortcuts.document(split, np.ones(len(split), bool), labels.astype(np.int64), colours, accuracy)


@pytest.mark.parametrize(
    ("group", "fake"),
    [("image size", {"size": (24, 32)}), ("JPEG tables", {"quality": 80}),
     ("JPEG tables", {"subsampling": 2}), ("file size", {"quality": 60}), ("mean colour", {"tint": 40})],
    ids=str,
)  # fmt: skip
def test_a_giveaway_is_found_in_its_group(tmp_path, group, fake):
    document = _document(_shards(tmp_path, fake, {}), 0.9)
    assert document["balanced_accuracy"][group] > 0.95
    assert document["alarm"] is True


def test_where_nothing_gives_it_away_no_alarm_is_raised(tmp_path):
    document = _document(_shards(tmp_path, {}, {}), 0.9)
    assert all(value < 0.68 for value in document["balanced_accuracy"].values())
    assert document["alarm"] is False
    assert document["chance"] == 0.5


def test_a_model_well_above_the_baseline_is_not_flagged(tmp_path):
    split = _shards(tmp_path, {"tint": 3}, {})
    document = _document(split, 0.99)
    best = max(document["balanced_accuracy"].values())
    assert document["alarm"] == (best > 0.94)
    assert _document(split, best + shortcuts.CLOSE / 2)["alarm"] == (best > 0.55)


def test_too_few_images_give_a_reason_and_no_baseline(tmp_path):
    assert "no baseline" in _document(_shards(tmp_path, {}, {}, count=4), 0.9)["note"]


def test_tables_of_quality_50_are_those_of_the_jpeg_standard():
    data = _jpeg(np.random.default_rng(0), quality=50, subsampling=2)
    tables, sampling = shortcuts.jpeg_tables(data)
    assert tables[:8].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]  # ITU-T T.81, table K.1
    assert tables[64:72].tolist() == [17, 18, 24, 47, 99, 99, 99, 99]  # table K.2
    assert sampling == 2


@pytest.mark.parametrize("length", [0, 2, 3, 10, 30, 200, 400])
def test_bytes_without_tables_are_64_zeros(length):
    cut = _jpeg(np.random.default_rng(0))[:length]
    for head in (cut, b"\x89PNG" + cut, b"\xff\xd8\xff\xdb\x00\x43\x00" + cut):
        tables, sampling = shortcuts.jpeg_tables(head)
        assert tables.tolist() == [0] * 64 and sampling == -1
