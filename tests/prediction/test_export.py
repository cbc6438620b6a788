"""Exported models give the same numbers in a process that has no Keras model and none of this project."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from deepduel import export
from deepduel.prediction.predictor import Predictor
from tests.conftest import run_command
from tests.helpers.fake_runs import SIZE, write_run

_SAVEDMODEL = """
import sys, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
np.save(sys.argv[3], model.serve(np.load(sys.argv[2])).numpy())
assert "deepduel" not in sys.modules
"""
_ONNX = """
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, {session.get_inputs()[0].name: np.load(sys.argv[2])})[0])
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, toy_shards):
    return write_run(tmp_path_factory.mktemp("export") / "run", toy_shards, axes=["category"])


def _same_elsewhere(run_folder, exported, program, tmp_path):
    pixels = np.random.default_rng(0).uniform(0, 255, (5, SIZE, SIZE, 3)).astype(np.float32)
    np.save(tmp_path / "in.npy", pixels)
    words = [sys.executable, "-I", "-c", program, exported, tmp_path / "in.npy", tmp_path / "out.npy"]
    subprocess.run(list(map(str, words)), check=True, cwd=tmp_path, capture_output=True)
    expected = Predictor(run_folder).models["category"](pixels, training=False).numpy()
    assert np.ptp(expected, axis=0).max() > 0.01  # different images, different answers
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


@pytest.mark.slow
def test_a_savedmodel_gives_the_same_numbers_elsewhere(run_folder, tmp_path):
    out = tmp_path / "exported"
    assert run_command(export, f"--workdir={run_folder}", f"--output={out}") == 0
    assert json.loads((out / "classes.json").read_text())["category"]["classes"] == [
        "animals", "human_faces", "vehicles",
    ]  # fmt: skip
    assert not list(out.glob(".*partial*"))
    _same_elsewhere(run_folder, out / "category", _SAVEDMODEL, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime")),
    reason="needs tf2onnx and onnxruntime",
)
def test_an_onnx_model_gives_the_same_numbers_elsewhere(run_folder, tmp_path):
    out = tmp_path / "exported"
    assert run_command(export, f"--workdir={run_folder}", "--format=onnx", f"--output={out}") == 0
    _same_elsewhere(run_folder, out / "category.onnx", _ONNX, tmp_path)


def test_mistakes_get_one_clear_line(run_folder, tmp_path, capsys, monkeypatch):
    def fails(words, code, *says):
        assert run_command(export, f"--workdir={run_folder}", *words) == code
        error = capsys.readouterr().err
        assert "Traceback" not in error and all(part in error for part in says), error

    out = f"--output={tmp_path / 'x'}"
    fails([], 2, "--output is missing")
    (tmp_path / "x" / "category").mkdir(parents=True)
    fails([out], 1, "exists already")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    fails([out, "--format=onnx"], 2, "pip install 'deepduel[onnx]'")
