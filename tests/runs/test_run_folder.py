"""Who trains in a run's folder, on which data, and where the folder lies now."""

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from deepduel import presets, train
from deepduel.networks.run_card import RunCard
from deepduel.runs import choices, run_folder
from deepduel.runs.settings import Change
from tests.conftest import TOY_TRAINING, history_rows, run_command
from tfrecords_tools import convert
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest

HOLD = """
import pathlib, sys, time
from deepduel.runs import run_folder
with run_folder.locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_command_in_the_folder_is_told_who_trains_there(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(DataError, match=rf"process {holder.pid} on .*, since 20.*trains here; wait"),
            run_folder.locked(tmp_path),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run_folder.locked(tmp_path):  # a dead process holds nothing
            pass
    finally:
        holder.kill()
        holder.wait()
    assert not (tmp_path / ".trained_by.json").exists()


def test_the_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), run_folder.locked(tmp_path):
        raise KeyboardInterrupt
    with run_folder.locked(tmp_path):
        pass


def test_changes_of_each_session_are_lines(tmp_path):
    run_folder.record(tmp_path, [], epoch=0, step=0)
    assert not (tmp_path / "changes.csv").exists()
    run_folder.record(tmp_path, [Change("epochs", "--epochs=1", "--epochs=2")], epoch=1, step=0)
    run_folder.record(tmp_path, [Change("learning_rate", "--learning_rate=1", "")], epoch=1, step=7)
    with (tmp_path / "changes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"], row["flag"], row["after"]) for row in rows] == [
        ("1", "0", "epochs", "--epochs=2"), ("1", "7", "learning_rate", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("read", [run_folder.record, choices._stored], ids=["changes", "flags"])
def test_a_pipe_where_a_run_has_a_file_is_refused_and_not_waited_for(tmp_path, read):
    for name in "changes.csv", "train.flags":
        os.mkfifo(tmp_path / name)
    words = ((tmp_path, [Change("epochs", "1", "2")]), {"epoch": 1, "step": 0})
    if read is choices._stored:
        words = ((tmp_path / "train.flags",), {})
    with pytest.raises(OSError, match="not a regular file"):
        read(*words[0], **words[1])


def test_a_runs_flagfile_means_the_run_where_it_lies(toy_run, tmp_path):
    moved = shutil.copytree(toy_run, tmp_path / "moved run")
    words = ["train", f"--flagfile={moved}/train.flags", "--epochs=3"]
    assert presets.resolve(words) == [*words[:2], f"--workdir={moved}", words[2]]
    two = ["train", "--flagfile", f"{moved}/train.flags"]
    assert presets.resolve(two) == [*two, f"--workdir={moved}"]
    resolved = presets.resolve([*words, "--workdir=new"])
    assert resolved == [*words[:2], "--workdir=new", words[2], "--workdir=new"]
    for before in (["--workdir=new"], ["--workdir", "new"]):  # a flagfile overrides what comes before it
        assert presets.resolve(["train", *before, words[1]])[-1] == "--workdir=new"
    alone = shutil.copy(toy_run / "train.flags", tmp_path / "train.flags")
    assert presets.resolve(["train", f"--flagfile={alone}"])[2:] == []  # beside a folder of other things


def test_a_moved_run_is_resumed_where_it_lies_on_shards_that_were_moved(
    toy_run, toy_shards, tmp_path, capsys, monkeypatch
):
    moved = shutil.copytree(toy_run, tmp_path / "moved")
    shards = shutil.copytree(toy_shards, tmp_path / "shards")
    before = (toy_run / "history.csv").read_bytes()
    flagfile = f"--flagfile={moved}/train.flags"
    monkeypatch.setattr(sys, "argv", ["train", flagfile, f"--data_dir={tmp_path}/nowhere"])
    assert train.entry() == 1
    assert "if the shards were moved, name their folder with --data_dir" in capsys.readouterr().err
    train.FLAGS.unparse_flags()
    monkeypatch.setattr(sys, "argv", ["train", flagfile, f"--data_dir={shards}", "--epochs=3"])
    assert train.entry() == 0
    assert len(history_rows(moved)) == 3
    assert (toy_run / "history.csv").read_bytes() == before
    assert f"--workdir={moved}\n" in (moved / "train.flags").read_text()


def test_a_lower_learning_rate_is_accepted_and_recorded(toy_run, toy_shards, tmp_path, capsys):
    workdir = shutil.copytree(toy_run, tmp_path / "run")
    words = f"--data_dir={toy_shards}", f"--workdir={workdir}", *TOY_TRAINING, "--epochs=3"
    assert run_command(train, *words, "--learning_rate=1e-9", "--micro_batch=7") == 1
    assert "trains batch-norm statistics, which are those of micro-batches" in capsys.readouterr().err
    assert run_command(train, *words, "--learning_rate=1e-9") == 0
    printed = capsys.readouterr().out
    assert "changed: --learning_rate=0.001 before, --learning_rate=1e-9 now" in printed
    before, after = (
        keras.models.load_model(workdir / "category" / f"epoch-0{epoch}.keras").trainable_variables
        for epoch in (2, 3)
    )
    for variable, later in zip(before, after, strict=True):
        np.testing.assert_allclose(variable, later, atol=1e-6)
    with (workdir / "changes.csv").open() as file:
        assert {row["flag"] for row in csv.DictReader(file)} == {"epochs", "learning_rate"}


def test_other_pixels_of_the_same_images_are_refused(toy_run, toy_folder, tmp_path):
    words = f"--input_dir={toy_folder}", f"--output_dir={tmp_path}/shards", "--num_shards=3", "--workers=1"
    assert run_command(convert, *words, "--encoding=jpeg", "--quality=50") == 0
    other = manifest.load(tmp_path / "shards")
    stored = RunCard.load(toy_run)
    card = dataclasses.replace(stored, data_sha256="0" * 64, data_options=other.options)
    assert stored.data_sha256 and other.source == stored.data_source
    with pytest.raises(DataError) as caught:
        run_folder.keep_card(card, toy_run, other)
    assert (
        "the same images of images, which have been converted with other options since (--encoding=keep "
        "before, --encoding=jpeg now; --quality=95 before, --quality=50 now); give another --workdir"
    ) in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({"seed": 0}, {"seed": 0, "alpha": "white"}, r"options since \(no --alpha before, --alpha=white now"),
        ({"seed": 0}, {"seed": 0}, r"with the same options to other shards \(the files have changed, or"),
        ({}, {"seed": 0}, "converted again since, to other shards;"),
    ],
)
def test_what_the_second_conversion_changed_is_said(tmp_path, toy_run, toy_shards, before, after, says):
    stored = dataclasses.replace(RunCard.load(toy_run), data_options=before)
    stored.save(tmp_path)
    card = dataclasses.replace(stored, data_sha256="0" * 64, data_options=after)
    with pytest.raises(DataError, match=says):
        run_folder.keep_card(card, tmp_path, manifest.load(toy_shards))


def test_images_that_were_appended_are_said_to_be(toy_run, toy_shards):
    stored, base = RunCard.load(toy_run), manifest.load(toy_shards)
    later = dataclasses.replace(
        base,
        source="1" * 64,
        generations=(*base.generations, {"source": "1" * 64, "images": 7, "shards": {}}),
    )
    card = dataclasses.replace(stored, data_source=later.source, data_sha256="0" * 64)
    with pytest.raises(DataError, match=r"without the 7 images appended since then.*--start_from"):
        run_folder.keep_card(card, toy_run, later)


def test_a_split_that_the_run_does_not_read_may_change(toy_run, toy_shards):
    card = dataclasses.replace(RunCard.load(toy_run), data_source="2" * 64)
    run_folder.keep_card(card, toy_run, manifest.load(toy_shards))
