"""Progress suits where it is shown: a wide and a narrow terminal, a pipe, and a notebook."""

import fcntl
import os
import pathlib
import pty
import struct
import subprocess
import sys
import termios

import nbformat
import pytest
from nbclient import NotebookClient

from tfrecords_tools import progress

ROOT = pathlib.Path(progress.__file__).parents[1]
PROGRAM = """
import sys
from tfrecords_tools import progress, terminal
now = [0.0]
with progress.Progress("epoch 3/10", total=1200, clock=lambda: now[0]) as bar:
    for number in range(1, 13):
        now[0] += 3
        bar.update(100 * number, "category 87.9%, authenticity 91.2%")
print(terminal.joined(["epoch 3/10", "category 0.2960 85.00%", "111 images/s, 12 s"]))
"""


def in_terminal(columns: int) -> list[str]:
    """The program's output in a terminal of so many columns, cut where it returns or ends a line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            parts.append(os.read(ours, 4096))
        except OSError:  # the other end is closed
            break
        if not parts[-1]:
            break
    assert process.wait() == 0
    os.close(ours)
    return [part for part in b"".join(parts).decode().replace("\r", "\n").split("\n") if part.strip()]


def test_a_terminal_of_40_columns_shows_what_is_left_and_how_well_it_goes():
    lines = in_terminal(40)
    assert all(len(line) <= 40 for line in lines), lines
    assert any(line.startswith("epoch 3/10 100% 00:00 left, category 87") for line in lines), lines
    assert lines[-3:] == ["epoch 3/10", "  category 0.2960 85.00%", "  111 images/s, 12 s"]


def test_a_wide_terminal_shows_a_bar_and_whole_lines():
    lines = in_terminal(110)
    assert any("100%|" in line and "authenticity 91.2%" in line for line in lines), lines
    assert lines[-1] == "epoch 3/10 | category 0.2960 85.00% | 111 images/s, 12 s"


def test_lines_become_fewer_the_longer_it_takes(capsys):
    now = [0.0]
    with progress.Progress("working", total=40_000, clock=lambda: now[0]) as bar:
        for number in range(1, 40_001):
            now[0] += 0.1
            bar.update(number)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("working: 20 of 40,000")
    assert 80 < len(lines) < 110  # 800 at five seconds each
    assert lines[-1].startswith("working: 40,000 of 40,000 images")


@pytest.mark.slow
def test_a_notebook_keeps_the_last_state_of_one_output(tmp_path):
    cell = nbformat.v4.new_code_cell(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute(cwd=tmp_path)
    shown, printed = notebook.cells[0].outputs
    assert shown.output_type == "display_data" and printed.name == "stdout"
    text = "epoch 3/10: 1,200 of 1,200 images, 33/s, category 87.9%, authenticity 91.2%"
    assert shown.data["text/plain"] == text
    assert '<progress value="1200" max="1200">' in shown.data["text/html"]


def test_one_of_a_thing_is_no_plural():
    assert [progress.counted(number, "image") for number in (0, 1, 2062)] == [
        "0 images",
        "1 image",
        "2,062 images",
    ]
