"""One command from class folders to an evaluated model; repeated, it resumes, and takes new images up."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from deepduel import fit
from deepduel.networks.run_card import RunCard
from tests.conftest import history_rows, run_command
from tests.helpers import folders
from tests.helpers.conversions import convert_to
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest

NETWORK = ("--backbone=small_cnn", "--head=avg", "--image_size=8", "--augmentation=none", "--batch_size=16")


@pytest.mark.slow
def test_a_folder_becomes_a_model_and_new_images_continue_it(tmp_path, capsys):
    images = folders.make(tmp_path / "my images", {"cats": 20, "dogs": 10})
    output = tmp_path / "my images.deepduel"
    assert run_command(fit, f"{images}/", *NETWORK, "--epochs=1") == 0
    printed = capsys.readouterr().out
    assert f"of 6 validation images of {images} classified correctly" in printed
    assert f"report: {output}/run-01/evaluation/validation/report.html" in printed
    assert f"predict: python -m deepduel.predict '--workdir={output}/run-01' PHOTO.jpg" in printed
    assert (output / "run-01" / "evaluation" / "validation" / "report.html").is_file()

    assert run_command(fit, images, *NETWORK, "--epochs=2") == 0  # resumes
    assert "nothing to append" in capsys.readouterr().out
    assert len(history_rows(output / "run-01")) == 2

    more = folders.make(tmp_path / "more", {"cats": 40})
    for path in sorted((more / "cats").iterdir())[-10:]:
        shutil.copy(path, images / "cats" / f"new-{path.name}")
    assert run_command(fit, images, *NETWORK, "--epochs=1") == 0
    printed = capsys.readouterr().out
    assert f"new images since {output}/run-01: training continues from its models" in printed
    text = (output / "run-02" / "train.flags").read_text()
    assert f"--start_from={output}/run-01\n" in text
    assert "category: starts from " in printed
    assert RunCard.load(output / "run-02").data_source == manifest.load(output / "shards").source
    assert len(history_rows(output / "run-02")) == 1

    assert run_command(fit, images, *NETWORK, "--epochs=1") == 0  # finds the second run finished
    assert not (output / "run-03").exists()


# What fit has printed when it is killed: at the start of each stage, and within the training.
STAGES = (
    "$ python -m tfrecords_tools.convert",
    "$ python -m deepduel.train",
    "each epoch:",
    "epoch 1/3 |",
    "$ python -m deepduel.evaluate",
)


@pytest.mark.slow
@pytest.mark.scale
def test_killed_at_any_stage_the_same_command_resumes(tmp_path):
    images = folders.make(tmp_path / "images", {"cats": 40, "dogs": 30})
    command = [
        sys.executable,
        "-u",
        "-m",
        "deepduel.fit",
        str(images),
        *NETWORK,
        "--epochs=3",
        "--save_every=1steps",
    ]
    project = pathlib.Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(project)}
    for stage in STAGES:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            seen = next((line for line in process.stdout if stage in line), None)
            process.kill()
        assert seen or stage.startswith("epoch"), stage  # an epoch may have ended before the last kill
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    output = pathlib.Path(f"{images}.deepduel")
    assert [row["epoch"] for row in history_rows(output / "run-01")] == ["1", "2", "3"]
    assert (output / "run-01/evaluation/validation/report.html").is_file()
    assert [path.name for path in output.glob("run-*")] == ["run-01"]
    assert manifest.load(output / "shards").splits["train"].records == 70
    assert not list(output.rglob("*partial*"))


@pytest.mark.parametrize("words", [["--dry_run"], ["--find_learning_rate"], ["--max_minutes=1"]])
def test_a_run_without_models_is_not_evaluated(tmp_path, toy_shards, monkeypatch, words):
    """With --max_minutes, training may stop within the first epoch."""
    called = []
    monkeypatch.setattr(fit, "_call", lambda module, *flags, **arguments: called.append(module) or 0)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "shards").symlink_to(toy_shards)
    card = _card(manifest.load(toy_shards).source)
    (tmp_path / "output" / "run-01").mkdir()
    if words == ["--max_minutes=1"]:
        card.save(tmp_path / "output" / "run-01")
    assert run_command(fit, tmp_path / "images", f"--output={tmp_path / 'output'}", *words) == 0
    assert called == [fit.convert, fit.train]


def test_the_newest_run_is_that_of_the_highest_number(tmp_path, toy_shards):
    data = manifest.load(toy_shards)
    for name in ("run-09", "run-99", "run-100", "run-100-old", "run-old"):
        (tmp_path / name).mkdir()
        _card(data.source).save(tmp_path / name)
    assert fit._run(tmp_path, data) == (tmp_path / "run-100", [])
    _card("other").save(tmp_path / "run-100")
    assert fit._run(tmp_path, data)[0] == tmp_path / "run-101"


def _card(source: str) -> RunCard:
    tasks = {"category": {"classes": ["a", "b"], "image_size": 8}}
    return RunCard(tasks, (8, 8), "crop", False, "images", source, 0)


def test_the_default_output_lies_beside_the_images_whatever_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for images, output in (
        ("my images", "my images.deepduel"),
        ("images/.", "images.deepduel"),
        (".", f"{tmp_path}.deepduel"),
        ("..", f"{tmp_path.parent}.deepduel"),
        ("a/images.zip", "a/images.zip.deepduel"),
        ("s3://bucket/hand signs", "hand_signs.deepduel"),
        ("tfds:mnist", "mnist.deepduel"),
    ):
        assert fit._default_output(images) == output
    monkeypatch.setattr(os, "access", lambda *arguments: False)  # as beside the data sets of Kaggle
    with pytest.raises(UsageError, match=f"{tmp_path} may not be written to; set --output"):
        fit._default_output(str(tmp_path / "images"))


def test_errors_name_flags_that_fit_has_or_the_command_that_has_them(tmp_path):
    with pytest.raises(DataError, match="there is no such folder; --images names a folder"):
        fit._convert(str(tmp_path / "none"), tmp_path / "shards")
    flat = folders.make(tmp_path / "flat", {"": 2})
    with pytest.raises(DataError, match=r"or pass --layout=") as caught:
        fit._convert(str(flat), tmp_path / "shards")
    assert str(caught.value).endswith(
        "deepduel fit does not have --layout: give it to python -m tfrecords_tools.convert "
        f"--input_dir={flat} --output_dir={tmp_path}/shards; then run deepduel train and deepduel evaluate"
    )
    message = "give another --workdir with --start_from=a, or run python -m deepduel.evaluate --workdir=b"
    assert fit._explained(message, fit.train, []) == message.replace("--workdir with", "--output with")


def test_a_new_class_needs_another_output(tmp_path):
    images = folders.make(tmp_path / "images", {"cats": 2, "dogs": 2})
    fit._convert(str(images), tmp_path / "out" / "shards")
    folders.make(images, {"owls": 2})
    with pytest.raises(DataError, match=r"'owls' is not among .*; to begin anew, set another --output than"):
        fit._convert(str(images), tmp_path / "out" / "shards")


def test_a_preset_is_named_as_for_train_and_a_cluster_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["fit", str(tmp_path / "none"), "--flagfile=quickstart"])
    assert fit.entry() == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert run_command(fit, tmp_path, "--cluster=a:1,b:1") == 2
    assert "Unknown command line flag 'cluster'" in capsys.readouterr().err


def test_mistakes_get_one_clear_line(tmp_path, capsys):
    assert run_command(fit, tmp_path / "none") == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert run_command(fit, "--epochs=2") == 2
    assert "needs a folder of images" in capsys.readouterr().err
    assert run_command(fit, tmp_path, tmp_path) == 2
    assert "takes a single value of --images" in capsys.readouterr().err


def test_images_that_changed_during_an_interrupted_conversion_have_a_remedy(tmp_path):
    """--append, which the converter offers otherwise, would have nothing to append to."""
    images, shards = folders.make(tmp_path / "images", {"cats": 2, "dogs": 2}), tmp_path / "out" / "shards"
    convert_to(shards, images, "--slice=0/2", "--num_shards=2")
    folders.make(images, {"cats": 3})
    with pytest.raises(DataError, match=f"or delete {shards}, which holds the unfinished one$"):
        fit._convert(str(images), shards)
    shutil.rmtree(shards)
    fit._convert(str(images), shards)
    folders.make(images, {"cats": 4})
    convert_to(shards, images, "--slice=0/2", "--append")
    folders.make(images, {"cats": 5})
    with pytest.raises(DataError, match=f"or delete {shards}/.convert, which holds the unfinished one;"):
        fit._convert(str(images), shards)
    shutil.rmtree(shards / ".convert")
    fit._convert(str(images), shards)
    assert manifest.load(shards).splits["train"].records == 7
