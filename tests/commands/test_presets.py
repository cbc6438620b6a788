"""Flagfiles that come with the package are found by name."""

import pathlib
import re

import pytest

from deepduel import presets


def test_the_presets_are_flagfiles_of_the_package():
    assert {"artifact_original", "fine_tune_all", "quickstart"} <= set(presets.names())


def test_headers_with_figures_say_whether_they_are_measured_or_computed():
    root = pathlib.Path(presets.__file__).parents[2]
    for path in (*root.glob("deepduel/presets/*.flags"), *root.glob("experiments/**/*.flags")):
        header = path.read_text("utf-8")
        if re.search(r"^# (hardware|time) ", header, re.MULTILINE):
            assert re.search(r"^# figures   (measured|computed)", header, re.MULTILINE), path


@pytest.mark.parametrize(
    "words", [["--flagfile=quickstart"], ["--flagfile", "quickstart"], ["-flagfile=quickstart"]]
)
def test_a_presets_name_becomes_its_path(words):
    resolved = presets.resolve(["train", *words, "--epochs=2"])
    assert resolved[-1] == "--epochs=2"
    assert pathlib.Path(resolved[-2].rpartition("=")[2]).name == "quickstart.flags"
    assert pathlib.Path(resolved[-2].rpartition("=")[2]).is_file()


def test_a_folder_of_that_name_does_not_hide_the_preset(tmp_path, monkeypatch):
    """The quickstart writes into a folder of its own name."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("quickstart").mkdir()
    assert presets.resolve(["train", "--flagfile=quickstart"])[1].endswith("quickstart.flags")


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("quickstart").write_text("--epochs=3\n")
    assert presets.resolve(["train", "--flagfile=quickstart"]) == ["train", "--flagfile=quickstart"]


def test_other_words_stay_as_they_are():
    words = ["train", "--flagfile=run/train.flags", "--weights=quickstart", "--flagfile"]
    assert presets.resolve(words) == words
