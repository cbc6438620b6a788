"""The notebook, cell by cell, on toy images and this machine's processor."""

import json
import os
import pathlib
import signal
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from tensorboard import manager

from tests.helpers import folders

PROJECT = pathlib.Path(__file__).parents[2]
NOTEBOOK = PROJECT / "experiments" / "notebook.ipynb"


@pytest.fixture
def no_board_left(tmp_path):
    """Ends the TensorBoard that the notebook starts: it outlives the kernel."""
    yield
    for board in manager.get_all():
        if str(tmp_path) in board.logdir:
            os.kill(board.pid, signal.SIGTERM)


def _execute(**settings) -> str:
    """Runs the notebook with other settings, and nothing to install; returns what it shows, as JSON."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(codes) < 12
    for name in settings:
        assert f"{name} = " in codes[0].source
    codes[0].source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    (install,) = [cell for cell in codes if '"pip"' in cell.source]
    install.source = f"import os, sys; sys.path.insert(0, {str(PROJECT)!r})"
    NotebookClient(notebook, timeout=500, kernel_name="python3").execute()
    return json.dumps(notebook)


def _settings(images: pathlib.Path, tmp_path: pathlib.Path, predict: pathlib.Path) -> dict:
    network = {"backbone": "small_cnn", "head": "avg", "image_size": 8, "augmentation": "none"}
    return {
        "IMAGES": str(images),
        "PROJECT": str(PROJECT),
        "WORK": str(tmp_path / "my work"),
        "OPTIONS": network | {"batch_size": 64, "epochs": 1},
        "PREDICT": str(predict),
    }


@pytest.fixture(autouse=True)
def this_python(monkeypatch):
    """The notebook finds the programs of this environment."""
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
def test_class_folders_become_a_model_that_predicts_a_picture(tmp_path, no_board_left):
    images = folders.make(tmp_path / "my images", {"cats": 30, "dogs": 20})
    shown = _execute(**_settings(images, tmp_path, images / "cats" / "0.jpg"))
    assert (tmp_path / "my work/run-01/category/best.keras").is_file()
    assert "srcdoc" in shown and "tensorboard" in shown and "p_category_cats" in shown and "<img" in shown


@pytest.mark.scale
@pytest.mark.slow
def test_two_tasks_of_artifacts_layout_run_a_second_time_too(toy_folder, tmp_path, no_board_left):
    settings = _settings(toy_folder, tmp_path, toy_folder / "test")
    for _ in range(2):
        shown = _execute(**settings)
        assert "confidence_authenticity" in shown and "p_category_vehicles" in shown
    run = tmp_path / "my work/run-01"
    assert (run / "category/best.keras").is_file() and (run / "authenticity/best.keras").is_file()
    metrics = json.loads((run / "evaluation/validation/metrics.json").read_text("utf-8"))
    assert set(metrics["tasks"]) == {"category", "authenticity"}
    assert not (tmp_path / "my work/run-02").exists()
