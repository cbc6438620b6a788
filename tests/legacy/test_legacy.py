"""What earlier versions left on disk keeps working: see `write` for what lies there."""

import csv
import importlib
import pathlib
import shutil

import keras
import numpy as np
import pytest

from deepduel import evaluate, predict, train
from tests.conftest import history_rows, run_command
from tests.helpers import tiny_network
from tfrecords_tools import verify

FOLDERS = sorted(path for path in pathlib.Path(__file__).parent.iterdir() if path.name.startswith("v"))


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def folder(request, tmp_path, monkeypatch) -> pathlib.Path:
    """A copy of an earlier version's folder, as the working directory: the paths in it are relative."""
    copy = shutil.copytree(request.param, tmp_path / "legacy")
    monkeypatch.chdir(copy)
    return copy


def test_shards_are_sound(folder):
    assert run_command(verify, "--data_dir=shards", "--decode", "--workers=1") == 0


def test_a_finished_run_is_evaluated(folder):
    assert run_command(evaluate, "--workdir=run", "--data_dir=shards", "--split=validation") == 0
    assert (folder / "run/evaluation/validation/metrics.json").stat().st_size > 0


def test_a_finished_run_predicts_as_its_saved_model(folder):
    words = "--workdir=run", "--images=shards", "--split=validation", "--output=out.csv", "--probabilities"
    assert run_command(predict, *words) == 0
    with pathlib.Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        shares = [float(value) for name, value in row.items() if name.startswith("p_category_")]
        assert sum(shares) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_run_resumes_for_a_second_epoch(folder, monkeypatch):
    tiny_network.install(monkeypatch)
    assert run_command(train, "--flagfile=run/train.flags", "--epochs=2") == 0
    assert [row["epoch"] for row in history_rows(folder / "run")] == ["1", "2"]


def test_a_model_with_random_warp_loads_once_the_public_module_is_imported(folder):
    importlib.import_module("deepduel.augment")  # registers the layer
    model = keras.models.load_model("random_warp.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    assert model.predict(images, verbose=0).shape == (2, 2)
