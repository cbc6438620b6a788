import json

import pytest

from deepduel import train
from deepduel.runs import run_options
from experiments import time_to_accuracy
from tests.conftest import run_command


def curve(accuracies: list[float], epoch_seconds: float, start: float) -> list[dict[str, float]]:
    return [
        {"accuracy": accuracy, "trained": number * epoch_seconds, "seconds": start + number * epoch_seconds}
        for number, accuracy in enumerate(accuracies, 1)
    ]


def test_the_first_epoch_that_reaches_the_target_counts():
    curves = {"plain": curve([0.5, 0.8, 0.7], 10, 5), "ours": curve([0.6, 0.7, 0.9], 1, 5)}
    document = time_to_accuracy.summary(curves, 0.75)
    assert {name: point["epoch"] for name, point in document["reached"].items()} == {"plain": 2, "ours": 3}
    plain, ours = time_to_accuracy.table(document).splitlines()[2:]
    assert plain.split() == ["plain", "2", "25.0", "1.0x", "20.0", "1.0x"]
    assert ours.split() == ["ours", "3", "8.0", "3.1x", "3.0", "6.7x"]


def test_without_a_target_it_is_the_best_that_all_reach():
    curves = {"plain": curve([0.5, 0.8, 0.7], 10, 5), "ours": curve([0.6, 0.7, 0.9], 1, 5)}
    document = time_to_accuracy.summary(curves, 0)
    assert document["target"] == 0.8
    assert {name: point["epoch"] for name, point in document["reached"].items()} == {"plain": 2, "ours": 3}


def test_who_does_not_reach_it_is_told_with_its_best():
    document = time_to_accuracy.summary({"plain": curve([0.5, 0.55], 10, 5)}, 0.75)
    assert document["reached"] == {"plain": None}
    assert "plain      not in 2 epochs; the best was 55.00%" in time_to_accuracy.table(document)


@pytest.mark.slow
@pytest.mark.scale
def test_the_usual_route_on_toy_images(toy_shards, tmp_path):
    words = [f"--data_dir={toy_shards}", f"--output={tmp_path}/result.json", "--contenders=plain"]
    words += ["--backbone=vgg16", "--weights=none", "--head=avg", "--image_size=32"]
    assert run_command(time_to_accuracy, *words, "--epochs=2", "--batch_size=64") == 0
    document = json.loads((tmp_path / "result.json").read_text("utf-8"))
    first, second = document["curves"]["plain"]
    assert 0 <= first["accuracy"] <= 1 and 0 < first["trained"] < first["seconds"]
    assert first["trained"] < second["trained"] and first["seconds"] < second["seconds"]


def test_our_routes_are_commands_that_training_takes(toy_shards, tmp_path):
    flags = time_to_accuracy.FLAGS
    flags.unparse_flags()
    words = f"--data_dir={toy_shards}", "--output=x.json", "--views=2", "--ours=--batch_size=32"
    flags(["time_to_accuracy", *words, "--ours=--precision=mixed_bfloat16"])
    for features in (False, True):
        _, _, module, *words = time_to_accuracy._our_command(flags, tmp_path / "run", features=features)
        assert module == "deepduel.train"
        train.FLAGS.unparse_flags()
        for name in train.FLAGS:
            train.FLAGS[name].unparse()
        train.FLAGS([module, *words])
        options = run_options.from_flags(train.FLAGS)
        assert (options.features is not None) == features and options.views == (2 if features else 3)
        assert options.reading.batch_size == 32
        assert train.FLAGS.precision[-1] == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--contenders=plain,theirs", "--contenders takes plain, ours, features, not 'theirs'"),
        ("--task=colour", "has no label axis 'colour'"),
        ("--output=nowhere/result.json", "its folder does not exist"),
    ],
)
def test_wrong_usage_is_one_line(toy_shards, tmp_path, capsys, word, message):
    words = f"--data_dir={toy_shards}", f"--output={tmp_path}/result.json", word
    assert run_command(time_to_accuracy, *words) == 2
    assert message in capsys.readouterr().err
