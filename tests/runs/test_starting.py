"""Runs that start from another run's models."""

import shutil

import keras
import numpy as np
import pytest

from deepduel import train
from tests.conftest import history_rows, run_command

pytestmark = pytest.mark.slow


def test_a_run_starts_from_another_with_its_settings_and_resumes_without_it(
    toy_run, toy_shards, tmp_path, capsys
):
    source = shutil.copytree(toy_run, tmp_path / "source")
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category"]
    words += [f"--start_from={source}", "--epochs=1", "--learning_rate=1e-30"]
    assert run_command(train, *words, "--max_minutes=0.0001") == 0
    output = capsys.readouterr().out
    assert f"category: starts from {source}/category/best.keras: backbone and head" in output
    assert "--backbone=small_cnn" in output and "small_cnn at 16 px" in output
    shutil.rmtree(source)
    assert run_command(train, *words) == 0
    assert "starts from" not in capsys.readouterr().out
    start, end = (
        keras.models.load_model(path / "category" / "best.keras").get_weights()
        for path in (toy_run, tmp_path / "run")
    )
    for before, after in zip(start, end, strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    accuracies = [float(row["val_category_accuracy"]) for row in history_rows(toy_run)]
    row = history_rows(tmp_path / "run")[0]
    assert float(row["val_category_accuracy"]) == pytest.approx(max(accuracies))


def test_weights_of_a_run_are_said_to_leave_its_head_behind(toy_run, toy_shards, tmp_path, capsys):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category", "--batch_size=64"]
    words += ["--backbone=small_cnn", "--head=avg", "--image_size=16", "--max_minutes=0.0001"]
    best = toy_run / "category" / "best.keras"
    assert run_command(train, *words, f"--weights={best}") == 0
    output = capsys.readouterr().out
    assert f"takes the backbone of {best}, and not its head; --start_from={best.parent} takes both" in output
