"""What is wrong with a command line is said before TensorFlow is imported."""

import subprocess
import sys

import pytest

TRAIN = ["--data_dir={data}", "--workdir={folder}/run"]
WRONG = {
    "train": [
        *([*TRAIN, word] for word in (
            "--tasks=colour", "--batch_size=0", "--micro_batch=x", "--save_every=x", "--profile_steps=3",
            "--cache=disk", "--sampling=x", "--head=avg,dense", "--image_size=0", "--augmentation=x",
            "--rotation_range=x", "--optimizer=x", "--warmup=x", "--precision=float8", "--fine_tune=half",
            "--monitor=x", "--ema=2", "--devices=x", "--epochs=0", "--views=2", "--backbone=colour=vgg16",
        )),
        ["--data_dir={folder}/none", "--workdir={folder}/run"],
        ["--workdir={folder}/run"],
    ],
    "profile_input": [
        ["--data_dir={data}", "--rotation_range=x"],
        ["--data_dir={data}", "--split=x"],
        ["--data_dir={folder}/none"],
    ],
    "evaluate": [[]],
    "predict": [["--workdir={folder}", "--output={folder}/x.csv"]],
}  # fmt: skip


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_command_line_is_refused_without_tensorflow(command, toy_shards, tmp_path):
    places = {"data": str(toy_shards), "folder": str(tmp_path)}
    lines = [[word.format(**places) for word in words] for words in WRONG[command]]
    program = f"""
import importlib, sys
from deepduel import {command}
for words in {lines}:
    importlib.reload({command})
    sys.argv = ["x", *words]
    print({command}.entry(), "tensorflow" in sys.modules or "keras" in sys.modules, words)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(lines)
    assert all(answer.startswith(("1 False", "2 False")) for answer in answers), done.stdout
    assert not (tmp_path / "run").exists()
