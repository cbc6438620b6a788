"""Runs that start from another run's models."""

import hashlib
import shutil

import keras
import numpy as np
import pytest

from deepduel import train
from deepduel.networks import weight_transfer
from deepduel.networks.run_card import RunCard
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
    assert "initial weights of category: source/category/best.keras, SHA-256" in (
        tmp_path / "run" / "README.md"
    ).read_text("utf-8")
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


def test_a_run_resumes_without_the_file_of_its_weights_or_with_it_elsewhere(
    toy_run, toy_shards, tmp_path, capsys
):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category", "--batch_size=64"]
    words += ["--backbone=small_cnn", "--head=avg", "--image_size=16", "--max_minutes=0.0001"]
    file = shutil.copy(toy_run / "category" / "best.keras", tmp_path / "mine.keras")
    assert run_command(train, *words, f"--weights={file}") == 0
    card = RunCard.load(tmp_path / "run").tasks["category"]["initial_weights"]
    assert card == {"name": "mine.keras", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    moved = file.rename(tmp_path / "moved.keras")
    assert run_command(train, *words, f"--weights={file}") == 0
    assert run_command(train, *words, f"--weights={moved}") == 0
    assert f"changed: --weights={file} before, --weights={moved} now" in capsys.readouterr().out
    epochs = (toy_run / "category").glob("epoch-*.keras")
    other = next(path for path in epochs if path.read_bytes() != moved.read_bytes())
    assert run_command(train, *words, f"--weights={other}") == 1
    assert f"weights={other}: not the file that the run started from" in capsys.readouterr().err
    assert run_command(train, *words, "--weights=none") == 1
    assert "holds a run with other settings" in capsys.readouterr().err


def test_a_source_that_is_replaced_while_it_is_read_is_taken_as_it_was(
    toy_run, toy_shards, tmp_path, monkeypatch
):
    """Another command ends an epoch of the source run while the networks of the new one are built."""
    source = shutil.copytree(toy_run, tmp_path / "source")
    best = source / "category" / "best.keras"
    before, transfer = best.read_bytes(), weight_transfer.transfer

    def replacing(*arguments, **options):
        shutil.copy(best, source / "new")
        (source / "new").write_bytes(b"another model")
        (source / "new").replace(best)
        return transfer(*arguments, **options)

    monkeypatch.setattr(weight_transfer, "transfer", replacing)
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category"]
    assert run_command(train, *words, f"--start_from={source}", "--max_minutes=0.0001") == 0
    assert (tmp_path / "run" / "resume" / "start-category.keras").read_bytes() == before
    assert not (tmp_path / "run" / ".initial_weights").exists()


def test_a_source_that_does_not_fit_leaves_the_folder_as_it_was(toy_run, toy_shards, tmp_path, capsys):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--tasks=category"]
    words += [f"--start_from={toy_run}", "--backbone=forensic_cnn", "--image_size=16"]
    assert run_command(train, *words) == 1
    assert "is not forensic_cnn of the same shape" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
