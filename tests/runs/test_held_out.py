"""Data without a validation split: a fifth of the images is held out, for training and for its evaluation."""

import json

import pytest

from deepduel import evaluate, train
from deepduel.networks.run_card import RunCard
from deepduel.runs import held_out
from tests.conftest import run_command
from tests.helpers import folders
from tests.helpers.conversions import convert_to

NETWORK = ("--backbone=small_cnn", "--head=avg", "--image_size=8", "--augmentation=none", "--batch_size=16")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    folders.make(folder / "images", {"cats": 20, "dogs": 10})
    assert convert_to(folder / "shards", folder / "images") == 0
    return folder / "shards"


def _splits(*words: str) -> tuple[str, str]:
    train.FLAGS.unparse_flags()
    for name in ("train_split", "validation_split", "reader"):
        train.FLAGS[name].unparse()
    train.FLAGS(["train", "--workdir=RUN", *words])
    held_out.set_splits(train.FLAGS)
    return train.FLAGS.train_split, train.FLAGS.validation_split


def test_splits_that_the_data_or_the_user_have_stay(shards, toy_shards):
    assert _splits(f"--data_dir={toy_shards}") == ("train", "validation")
    assert _splits(f"--data_dir={shards}", "--validation_split=train") == ("train", "train")
    assert _splits(f"--data_dir={shards}", "--reader=sequential") == ("train", "validation")
    assert _splits(f"--data_dir={shards}") == ("train[:80%]", "train[80%:]")


@pytest.mark.slow
def test_plain_class_folders_train_and_evaluate_without_a_flag_for_it(shards, tmp_path, capsys):
    workdir = tmp_path / "run"
    words = f"--data_dir={shards}", f"--workdir={workdir}", *NETWORK
    assert run_command(train, *words) == 0
    printed = capsys.readouterr().out
    assert "has no validation split: a fifth of 'train' is held out" in printed
    assert "24 training and 6 validation images" in printed
    assert "--validation_split=train[80%:]\n" in (workdir / "train.flags").read_text()
    assert RunCard.load(workdir).validation_split == "train[80%:]"
    assert run_command(train, *words, "--epochs=2") == 0  # resumes with the same splits
    assert "resuming at epoch 2" in capsys.readouterr().out
    assert run_command(evaluate, f"--workdir={workdir}", f"--data_dir={shards}", "--bootstrap=0") == 0
    document = json.loads((workdir / "evaluation" / "validation" / "metrics.json").read_text())
    assert (document["split"], document["records"]) == ("train[80%:]", 6)
    assert set(document["duplicates"]["across"]) == {"train[:80%]"}
