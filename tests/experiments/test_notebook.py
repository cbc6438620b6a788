"""The notebook, cell by cell, on toy images and this machine's processor."""

import csv
import json
import os
import pathlib
import signal
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from tensorboard import manager

PROJECT = pathlib.Path(__file__).parents[2]
NOTEBOOK = PROJECT / "experiments" / "notebook.ipynb"


@pytest.fixture
def no_board_left(tmp_path):
    """Ends the TensorBoard that the notebook starts: it outlives the kernel."""
    yield
    for board in manager.get_all():
        if str(tmp_path) in board.logdir:
            os.kill(board.pid, signal.SIGTERM)


def _cells(**settings: str):
    """The notebook with other settings, and nothing to install."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(codes) < 12
    for name in settings:
        assert f"{name} = " in codes[0].source
    codes[0].source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    (install,) = [cell for cell in codes if "pip install" in cell.source]
    install.source = f"%cd {PROJECT}"
    return notebook


@pytest.mark.slow
def test_from_a_folder_to_models_and_predictions(toy_folder, tmp_path, monkeypatch, no_board_left):
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    work = tmp_path / "work"
    options = "--backbone=small_cnn --head=avg --image_size=8 --augmentation=none --batch_size=64"
    notebook = _cells(
        IMAGES=str(toy_folder), PROJECT=str(PROJECT), WORK=str(work), OPTIONS=options,
        PREDICT=f"{toy_folder}/test",
    )  # fmt: skip
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()

    assert (work / "run/category/best.keras").is_file() and (work / "run/authenticity/best.keras").is_file()
    metrics = json.loads((work / "run/evaluation/validation/metrics.json").read_text("utf-8"))
    assert set(metrics["tasks"]) == {"category", "authenticity"}
    with (work / "submission.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 18
    shown = json.dumps(notebook)
    assert "image/png" in shown and "srcdoc" in shown and "tensorboard" in shown
