import io
import os
import pathlib
import subprocess
import sys

import pytest

from tests.helpers import folders
from tests.helpers.conversions import convert_to
from tfrecords_tools import manifest, terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grün 猫.jpg", "grün 猫.jpg"),
        ("a\nb", "a\\nb"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\udcff", "\\udcff"),
    ],
)
def test_text_of_unknown_origin_is_shown_on_one_line(text, shown):
    assert terminal.escaped(text) == shown


def test_names_keep_their_letters_and_lose_their_line_ends():
    assert terminal.one_line("می‌خواهم 👩‍🔬") == "می‌خواهم 👩‍🔬"
    assert terminal.one_line("a\nb\x1b\u2028") == "a\\nb\\x1b\\u2028"


@pytest.mark.parametrize("word", ["=1+1", "@SUM(1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1", "\r=1"])
def test_formulas_are_no_cells(word):
    assert terminal.path_cell(word) == f"./{word}"
    assert terminal.word_cell(word) == f"'{word}"
    assert terminal.plain_word(terminal.word_cell(word)) == word


@pytest.mark.parametrize("word", ["cats", "-1", "+1", "-0.5", "", "a=b", "'quoted", "'", "train/-x.jpg"])
def test_other_cells_stay_as_they_are(word):
    assert terminal.path_cell(word) == terminal.word_cell(word) == terminal.plain_word(word) == word


def test_a_stream_escapes_what_acts_on_terminals_and_what_its_encoding_lacks(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    with terminal.guarded_streams():
        print("grün\x1b[31m\tred\r", flush=True)
    assert raw.getvalue() == b"gr\\xfcn\\x1b[31m\tred\r\n"


def test_a_stream_that_somebody_kept_can_be_closed_after_its_own_end_and_closes_no_other(monkeypatch):
    """absl's handler of Python's logging keeps the stderr that it found, and closes it when Python ends."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.guarded_streams():
        kept = sys.stderr
    kept.close()
    assert not stream.closed
    stream.close()
    kept.write("lost")
    kept.close()
    assert not hasattr(kept, "fileno")


def run(program: str, **options) -> subprocess.CompletedProcess:
    """Runs a program that prints for ever more, in a command of ours."""
    head = "import os, sys\nfrom absl import flags\nfrom tfrecords_tools import cli\n"
    tail = "\nsys.exit(cli.run(main, flags.FlagValues(), name='test', argv=['test']))"
    body = "".join(f"    {line}\n" for line in program.splitlines())
    command = [sys.executable, "-c", f"{head}def main(_):\n{body}{tail}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | options.pop("env", {})
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=60, **options)


def test_a_reader_that_went_away_ends_no_work(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = tmp_path / "done"
    result = run(f"for _ in range(9999): print('line')\nopen({str(done)!r}, 'w').close()", stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr, done.exists()) == (0, b"", True)


def test_streams_that_are_closed_end_no_work_and_give_their_numbers_to_no_file(tmp_path):
    file = tmp_path / "file"
    lines = [f"with open({str(file)!r}, 'w') as file:", "print('out')"]
    lines += ["os.write(1, b'from C')", "file.write('whole')"]
    result = run("\n    ".join(lines), preexec_fn=lambda: os.close(1))
    assert (result.returncode, result.stderr, file.read_text()) == (0, b"", "whole")


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_log_on_a_full_disk_ends_no_work():
    with pathlib.Path("/dev/full").open("w") as full:
        result = run("print('line' * 9999)", stdout=full)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_class_whose_name_breaks_lines_has_one_line_everywhere(tmp_path, capsys):
    images = folders.make(tmp_path / "images", {"train/a\nb": 2, "train/\x1b[31mred": 2, "train/=1+1": 2})
    assert convert_to(tmp_path / "shards", images) == 0
    names = manifest.load(tmp_path / "shards").axes["category"]
    assert sorted(names) == ["=1+1", "\\x1b[31mred", "a\\nb"]
    labels = (tmp_path / "shards" / "category.labels.txt").read_text().splitlines()
    assert tuple(labels) == names
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "a\\nb" in shown
