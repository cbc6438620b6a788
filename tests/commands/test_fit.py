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
from tfrecords_tools.format import manifest

NETWORK = ("--backbone=small_cnn", "--head=avg", "--image_size=8", "--augmentation=none", "--batch_size=16")


@pytest.mark.slow
def test_a_folder_becomes_a_model_and_new_images_continue_it(tmp_path, capsys):
    images = folders.make(tmp_path / "my images", {"cats": 20, "dogs": 10})
    output = tmp_path / "my images.deepduel"
    assert run_command(fit, f"{images}/", *NETWORK, "--epochs=1") == 0
    printed = capsys.readouterr().out
    assert f"of 6 images of {images} that it was not trained on are right" in printed
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


def test_mistakes_get_one_clear_line(tmp_path, capsys):
    assert run_command(fit, tmp_path / "none") == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert run_command(fit, "--epochs=2") == 2
    assert "needs a folder of images" in capsys.readouterr().err
    assert run_command(fit, tmp_path, tmp_path) == 2
    assert "takes a single value of --images" in capsys.readouterr().err
