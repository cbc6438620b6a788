"""Runs that end by themselves: out of time, without improvement, or because no step is finite."""

import csv

import numpy as np
import pytest

from deepduel import train
from deepduel.runs import callbacks
from tests.conftest import TOY_TRAINING, history_rows, run_command
from tests.helpers import tiny_network

TASKS = ("category", "authenticity")
PLAIN = ["--backbone=small_cnn", "--head=avg", "--image_size=8", "--augmentation=none", "--batch_size=60"]


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    tiny_network.install(monkeypatch)


@pytest.mark.slow
def test_a_run_given_a_time_plans_its_epochs_and_ends_its_cosine_with_them(
    toy_shards, tmp_path, monkeypatch, capsys
):
    rates = []

    def twenty_seconds(clock, epoch, logs):
        rates.append(float(clock.model.tasks[0].optimizer.learning_rate))
        logs |= {"seconds": 20.0, "images_per_second": 1.0, "input_wait_share": 0.0}

    monkeypatch.setattr(callbacks.Clock, "on_epoch_end", twenty_seconds)
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *TOY_TRAINING, "--tasks=category"
    words = *words, "--schedule=cosine"
    assert run_command(train, *words, "--epochs=1min") == 0
    assert len(history_rows(tmp_path / "run")) == 3
    assert rates == pytest.approx([0.001, 0.0005, 0], abs=1e-9)
    assert "epoch 3/3" in capsys.readouterr().out
    assert run_command(train, *words, "--epochs=1min") == 0
    assert "has finished its 3 epochs" in capsys.readouterr().out


def test_an_exploding_learning_rate_is_stopped_and_leaves_no_useless_state(toy_shards, tmp_path, capsys):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category", *PLAIN]
    words += ["--batch_size=8", "--learning_rate=1e38", "--epochs=3", "--save_every=1steps"]
    for _ in range(2):  # the second one begins again, and lists no step twice
        assert run_command(train, *words) == 1
        error = capsys.readouterr().err
        assert "category: 10 steps in a row up to epoch 1, step 1" in error
        assert "the learning rate (1e+38)" in error and "non_finite.csv" in error
        assert "The last good state is that of epoch 1, step 0: resume with a lower --learning_rate" in error
        assert [path.name for path in (tmp_path / "run" / "resume").iterdir()] == [
            "state-000000-000000000.npz"
        ]
        with (tmp_path / "run" / "non_finite.csv").open(newline="") as file:
            listed = list(csv.DictReader(file))
        assert len(listed) >= 80  # ten batches of eight images
        assert len({tuple(row.values()) for row in listed}) == len(listed)
        assert listed[0]["key"].startswith("train/")


@pytest.mark.slow
def test_a_task_that_gets_no_better_stops_alone_and_stays_stopped(toy_shards, tmp_path, capsys):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category,authenticity"]
    words += PLAIN
    words += ["--learning_rate=authenticity=1e-30", "--batch_norm=authenticity=frozen"]
    words += ["--early_stopping=authenticity=1", "--monitor=auc", "--monitor=category=loss"]
    assert run_command(train, *words, "--epochs=3") == 0
    output = capsys.readouterr().out
    assert "authenticity: no improvement of auc for 1 epoch, stopped; the best is epoch 1" in output
    assert run_command(train, *words, "--epochs=4") == 0
    names = {task: len(list((tmp_path / "run" / task).glob("epoch-*"))) for task in TASKS}
    assert names == {"category": 4, "authenticity": 2}
    history = history_rows(tmp_path / "run")
    assert [row["val_authenticity_auc"] != "" for row in history] == [True, True, False, False]
    best = 1 + int(np.argmin([float(row["val_category_loss"]) for row in history]))
    for task, epoch in (("category", best), ("authenticity", 1)):
        folder = tmp_path / "run" / task
        assert (folder / "best.keras").read_bytes() == (folder / f"epoch-0{epoch}.keras").read_bytes()


@pytest.mark.slow
def test_a_run_ends_when_all_tasks_have_stopped(toy_shards, tmp_path, capsys):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category"]
    words += PLAIN
    words += ["--learning_rate=1e-30", "--batch_norm=frozen", "--early_stopping=2", "--epochs=90"]
    assert run_command(train, *words) == 0
    assert len(history_rows(tmp_path / "run")) == 3
    capsys.readouterr()
    assert run_command(train, *words) == 0
    assert "all tasks have stopped early, after 3 epochs" in capsys.readouterr().out
