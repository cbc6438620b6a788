import csv

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepduel import train
from deepduel.runs import curve_picture
from deepduel.runs.rate_search import Curve
from tests.conftest import run_command
from tests.helpers import tiny_network

RATES = np.geomspace(1e-7, 10, 100).tolist()


def curve(loss) -> Curve:
    return Curve(RATES, [loss(rate) for rate in RATES])


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_smoothed_loss():
    valley = curve(lambda rate: 2 + (np.log10(rate) + 2) ** 2 / 10)  # lowest at 0.01
    assert valley.suggestion == pytest.approx(0.001, rel=0.1)
    assert not valley.has_exploded
    assert curve(lambda rate: 2.0).suggestion is None
    assert curve(lambda rate: 1.0 + rate).suggestion is None
    assert curve(lambda rate: 1.0 + 100 * rate).has_exploded
    assert Curve().suggestion is None
    noise = np.random.default_rng(0).normal(2, 0.5, 100).tolist()
    assert Curve(RATES, noise).suggestion is None


def test_the_smoothed_loss_follows_without_a_delay():
    assert Curve([1, 2, 3], [4.0, 4.0, 4.0]).smoothed == pytest.approx([4, 4, 4])
    line = curve(lambda rate: np.log10(rate))
    assert line.smoothed[5:-5] == pytest.approx(line.losses[5:-5])


def test_the_picture_has_the_curve_and_the_mark_and_survives_few_points():
    picture = curve_picture.draw(RATES, [1.0] * 100, np.linspace(2, 1, 100), marked=0.001)
    assert picture.shape == (1, 440, 720, 3) and picture.dtype == np.uint8
    for color in ((0, 0, 128), (178, 34, 34)):  # navy, firebrick
        assert (picture == color).all(-1).sum() > 300
    for count in range(3):
        curve_picture.draw(RATES[:count], [1.0] * count, [1.0] * count, marked=None)


@pytest.mark.slow
def test_the_command_writes_the_curves_begins_no_run_and_leaves_the_folder_to_one(
    toy_shards, tmp_path, monkeypatch, capsys
):
    tiny_network.install(monkeypatch)
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *tiny_network.RUN
    words = *words, "--tasks=category,authenticity", "--batch_size=30"
    assert run_command(train, *words, "--find_learning_rate", "--schedule=cosine") == 0
    output = capsys.readouterr().out
    folder = tmp_path / "run" / "find_learning_rate"
    with (folder / "rates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 20 < len(rows) <= 100 and float(rows[0]["learning_rate"]) == pytest.approx(1e-7)
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    for task in ("category", "authenticity"):
        assert f"{task}: " in output and str(folder / f"{task}.png") in output
        with Image.open(folder / f"{task}.png") as picture:
            assert picture.size == (720, 440)
        assert float(rows[0][f"{task}_loss"]) > 0
        assert len(events.Tensors(f"find_learning_rate/{task}_smoothed_loss")) > 20
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["find_learning_rate"]
    assert run_command(train, *words, "--epochs=1") == 0
