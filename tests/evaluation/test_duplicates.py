"""Exact and near duplicates are counted within and across splits, and figures without them reported."""

import io
import json

import fsspec
import numpy as np
import pytest
from PIL import Image, ImageDraw

from deepduel import evaluate
from deepduel.decoding.split import Split
from deepduel.evaluation import duplicates as picture_duplicates
from tests.conftest import run_command
from tests.helpers.batches import spoil
from tests.helpers.fake_runs import write_run
from tfrecords_tools import convert


def _picture(rng) -> Image.Image:
    """Large shapes: what perceptual hashes see."""
    picture = Image.new("RGB", (64, 64), tuple(rng.integers(0, 255, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        corners = sorted(rng.integers(0, 64, 2).tolist()), sorted(rng.integers(0, 64, 2).tolist())
        (left, right), (top, bottom) = corners
        draw.ellipse((left, top, right + 4, bottom + 4), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return picture


def _jpeg(picture, quality=95) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """train: 24 images. validation: 16, of them 1 as in train, 2 recompressed, 1 twice within."""
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("copies")
    pictures = [_picture(rng) for _ in range(40)]
    files = {}
    for number, picture in enumerate(pictures):
        split, label = "train" if number < 24 else "validation", ("real", "fake")[number % 2]
        files[split, label, f"{number}.jpg"] = _jpeg(picture)
    files["validation", "real", "24.jpg"] = _jpeg(pictures[0])
    files["validation", "fake", "25.jpg"] = _jpeg(pictures[1], 40)
    files["validation", "real", "26.jpg"] = _jpeg(pictures[2].resize((96, 96)), 90)
    files["validation", "real", "28.jpg"] = files["validation", "real", "30.jpg"]
    for parts, data in files.items():
        path = folder.joinpath("images", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    words = f"--input_dir={folder / 'images'}", f"--output_dir={folder / 'shards'}", "--workers=1"
    assert run_command(convert, *words) == 0
    return folder / "shards"


def _key(split, *stems):
    return {number for number in range(len(split)) if split.key(number).decode().endswith(stems)}


def test_near_and_exact_duplicates_are_counted_and_shown(shards):
    split = Split(shards, "validation")
    duplicates = picture_duplicates.search(split)
    near = duplicates.document.pop("near")
    assert duplicates.document == {"within": 1, "across": {"train": 1}}
    assert (near["within"], near["across"]) == (1, {"train": 3})
    shown = {(mine["key"], theirs["split"], theirs["key"]) for mine, theirs in near["examples"]}
    assert shown == {
        ("validation/real/24.jpg", "train", "train/real/0.jpg"),
        ("validation/fake/25.jpg", "train", "train/fake/1.jpg"),
        ("validation/real/26.jpg", "train", "train/real/2.jpg"),
    }
    assert set(np.flatnonzero(duplicates.in_other_splits)) == _key(split, "24.jpg", "25.jpg", "26.jpg")


def test_the_other_splits_of_an_object_store_are_searched_too(shards):
    store = fsspec.filesystem("memory")
    for path in shards.iterdir():
        if path.is_file():
            store.pipe_file(f"/duplicates/{path.name}", path.read_bytes())
    duplicates = picture_duplicates.search(Split("memory://duplicates", "validation"), "exact")
    assert duplicates.document["across"] == {"train": 1}


def test_only_the_requested_kind_of_duplicates_is_searched_for(shards, monkeypatch):
    split = Split(shards, "validation")
    exact = picture_duplicates.search(split, "exact")
    assert exact.document["within"] == 1 and "note" in exact.document["near"]
    assert set(np.flatnonzero(exact.in_other_splits)) == _key(split, "24.jpg")
    assert not picture_duplicates.search(split, "none").in_other_splits.any()
    monkeypatch.setattr(picture_duplicates, "NEAR_AT_MOST", 39)
    assert "40 images" in picture_duplicates.search(split, "auto").document["near"]["note"]


def test_an_image_that_does_not_decode_is_compared_by_its_bytes_alone(shards, tmp_path):
    import shutil

    folder = shutil.copytree(shards, tmp_path / "shards")
    (number,) = _key(Split(folder, "validation"), "25.jpg")
    spoil(folder, number, split="validation")
    near = picture_duplicates.search(Split(folder, "validation")).document["near"]
    assert near["across"] == {"train": 2}


@pytest.mark.slow
def test_the_report_gives_the_figures_without_the_duplicates(shards, tmp_path, capsys):
    run = write_run(tmp_path / "run", shards)
    words = f"--workdir={run}", f"--data_dir={shards}", "--bootstrap=0"
    assert run_command(evaluate, *words) == 0
    folder = run / "evaluation" / "validation"
    task = json.loads((folder / "metrics.json").read_text())["tasks"]["authenticity"]
    assert (task["images"], task["apart_from_copies"]["images"]) == (16, 13)
    page = (folder / "report.html").read_text("utf-8")
    assert "over the 13 images without a duplicate in another split" in page
    assert page.count("train/real/0.jpg</code>") == 1
    assert run_command(evaluate, *words, "--duplicates=none") == 0
    task = json.loads((folder / "metrics.json").read_text())["tasks"]["authenticity"]
    assert task["apart_from_copies"] is None
