"""The check of labels: planted mistakes are found, and the list of them goes back into the conversion."""

import csv
import pathlib
import sys
import types

import numpy as np
import pytest
from PIL import Image

from deepduel import evaluate, train
from deepduel.evaluation import label_check
from tests.conftest import run_command
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools.errors import UsageError

COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}
PLANTED = 6  # of 60 images of validation


def predictions(labels, probabilities, axis="x"):
    return types.SimpleNamespace(
        labels={axis: np.asarray(labels)}, probabilities={axis: np.asarray(probabilities, np.float32)}
    )


def test_labels_are_doubted_where_a_sure_prediction_is_another_class():
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3
    labels = truth.copy()
    labels[:9] = (truth[:9] + 1) % 3
    labels[290:] = -1
    probabilities = 0.05 + 0.85 * np.eye(3)[truth] + rng.uniform(0, 0.02, (300, 3))
    doubted = label_check.doubted(
        predictions(labels, probabilities / probabilities.sum(1, keepdims=True)), "x"
    )
    assert sorted(doubted.tolist()) == list(range(9))


def test_without_a_mistake_and_without_images_of_a_class_nothing_is_doubted():
    pytest.importorskip("cleanlab")
    truth = np.arange(40) % 2
    probabilities = 0.1 + 0.7 * np.eye(3)[truth]
    assert label_check.doubted(predictions(truth, probabilities), "x").size == 0
    truth[0] = 1
    assert label_check.doubted(predictions(truth, probabilities), "x").tolist() == [0]


def test_without_cleanlab_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(UsageError, match=r"--label_check needs cleanlab .*pip install 'deepduel\[labels\]'"):
        label_check.require()


def draw(folder: pathlib.Path) -> set[str]:
    """Images of one colour each, some in the wrong class of validation; returns the keys of these."""
    rng, planted = np.random.default_rng(0), set()
    for split, count in (("train", 40), ("validation", 20)):
        for name, colour in COLOURS.items():
            for number in range(count):
                wrong = split == "validation" and number < PLANTED // 3
                directory = (
                    dict(zip(COLOURS, [*list(COLOURS)[1:], "blue"], strict=True))[name] if wrong else name
                )
                path = folder / split / directory / f"{name}-{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.asarray(colour) + rng.integers(-40, 40, (16, 16, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
                if wrong:
                    planted.add(str(path.relative_to(folder)))
    return planted


@pytest.mark.slow
@pytest.mark.scale
@pytest.mark.usefixtures("real_networks")
def test_planted_mistakes_are_found_shown_and_left_out_by_the_next_conversion(tmp_path, capsys):
    pytest.importorskip("cleanlab")
    images, shards, run = tmp_path / "images", tmp_path / "shards", tmp_path / "run"
    planted = draw(images)
    assert convert_to(shards, images) == 0
    words = "--backbone=small_cnn", "--head=avg", "--image_size=16", "--batch_size=20", "--epochs=6"
    assert run_command(train, f"--data_dir={shards}", f"--workdir={run}", *words, "--learning_rate=0.01") == 0
    assert run_command(
        evaluate, f"--workdir={run}", f"--data_dir={shards}", "--label_check", "--bootstrap=0"
    ) == 0  # fmt: skip
    folder = run / "evaluation" / "validation"
    listed = folder / "doubted_labels.csv"
    assert f"labels probably wrong; see {listed}" in capsys.readouterr().out
    with listed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    listed_keys = {row["key"] for row in rows}
    assert len(listed_keys & planted) >= PLANTED - 1 and len(listed_keys - planted) <= 1
    assert all(row["label"] == row["key"].split("/")[1] != row["predicted"] for row in rows)
    assert "Labels that may be wrong" in (folder / "report.html").read_text("utf-8")

    assert convert_to(tmp_path / "better", images, f"--exclude=@{listed}") == 0
    assert set(stored(shards)) - set(stored(tmp_path / "better")) == listed_keys
