"""Exported models predict images of any size as deepduel.evaluate does, in a process without the project."""

import csv
import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deepduel import evaluate, export
from deepduel.prediction.export import _add_classes as add_classes
from tests.conftest import run_command
from tests.helpers.fake_runs import write_run
from tfrecords_tools import convert

# What another program does: it reads the pictures with Pillow, and hands them to the model as they are.
_READ = """
import json, sys, numpy as np
from PIL import Image
exported, images, keys = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
pictures = [np.asarray(Image.open(f"{images}/{key}").convert("RGB"))[None] for key in keys]
"""
_WITH_TENSORFLOW = """
import keras, tensorflow as tf
keras_model = keras.models.load_model(f"{exported}/category.keras")
outputs = [keras_model.predict(picture, verbose=0) for picture in pictures]
by_keras = [[part["label"][0].decode(), part["probabilities"][0].tolist()] for part in outputs]

saved_model = tf.saved_model.load(f"{exported}/category")
outputs = [saved_model.serve(picture.astype("float32")) for picture in pictures]
by_saved_model = [[p["label"].numpy()[0].decode(), p["probabilities"].numpy()[0].tolist()] for p in outputs]

lite, by_lite = tf.lite.Interpreter(f"{exported}/category.tflite"), []
place, result = lite.get_input_details()[0]["index"], lite.get_output_details()[0]["index"]
for picture in pictures:
    lite.resize_tensor_input(place, picture.shape)
    lite.allocate_tensors()
    lite.set_tensor(place, picture.astype("float32"))
    lite.invoke()
    by_lite.append([None, lite.get_tensor(result)[0].tolist()])

json.dump([by_keras, by_saved_model, by_lite], sys.stdout)
assert "deepduel" not in sys.modules
"""
_WITH_ONNX = """
import onnxruntime
model = onnxruntime.InferenceSession(f"{exported}/category.onnx", providers=["CPUExecutionProvider"])
name = model.get_inputs()[0].name
rows = [[None, model.run(None, {name: picture.astype("float32")})[0][0].tolist()] for picture in pictures]
json.dump([rows], sys.stdout)
"""
_NEEDS_ONNX = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime")),
    reason="needs tf2onnx and onnxruntime",
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, toy_folder) -> pathlib.Path:
    """The toy validation images in class folders, of two sizes."""
    folder = tmp_path_factory.mktemp("photographs") / "images"
    for number, path in enumerate(sorted((toy_folder / "validation").rglob("*.jpg"))):
        target = folder / "validation" / path.parent.name / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        size = ((40, 65), (97, 51))[number % 2]
        Image.open(path).resize(size, Image.Resampling.BICUBIC).save(target)
    (folder / "train").symlink_to(folder / "validation")
    return folder


@pytest.fixture(scope="module")
def run_folder(photographs):
    """A run on these images; they are cropped to 32x32 pixels, and its network sees 24x24."""
    shards = photographs.parent / "shards"
    assert run_command(convert, f"--input_dir={photographs}", f"--output_dir={shards}", "--workers=1") == 0
    workdir = write_run(photographs.parent / "run", shards)
    assert run_command(evaluate, f"--workdir={workdir}", f"--data_dir={shards}", "--bootstrap=0") == 0
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forms", "program"),
    [
        (("keras", "savedmodel", "litert"), _WITH_TENSORFLOW),
        pytest.param(("onnx",), _WITH_ONNX, marks=_NEEDS_ONNX),
    ],
    ids=["with_tensorflow", "with_onnx"],
)
def test_an_exported_model_is_as_accurate_elsewhere(run_folder, photographs, tmp_path, forms, program):
    out = tmp_path / "exported"
    for form in forms:
        words = f"--workdir={run_folder}", f"--format={form}", f"--output={out}", "--tasks=category"
        assert run_command(export, *words) == 0
    assert not list(out.glob(".*partial*"))
    classes = json.loads((out / "classes.json").read_text())["category"]["classes"]
    folder = run_folder / "evaluation" / "validation"
    with (folder / "predictions.csv").open(newline="") as file:
        evaluated = list(csv.DictReader(file))
    keys = json.dumps([row["key"] for row in evaluated])
    words = [sys.executable, "-I", "-c", _READ + program, out, photographs, keys]
    done = subprocess.run(list(map(str, words)), check=True, cwd=tmp_path, capture_output=True, text=True)

    expected = np.array([[float(row[f"p_category_{name}"]) for name in classes] for row in evaluated])
    accuracy = json.loads((folder / "metrics.json").read_text())["tasks"]["category"]["overall"]["accuracy"]
    for form, rows in zip(forms, json.loads(done.stdout), strict=True):
        probabilities = np.array([row[1] for row in rows])
        np.testing.assert_allclose(probabilities, expected, atol=0.02, err_msg=form)
        assert np.abs(probabilities - expected).mean() < 2e-3 < np.ptp(expected, axis=0).max()
        predicted = [classes[number] for number in probabilities.argmax(1)]
        assert all(label in (None, name) for (label, _), name in zip(rows, predicted, strict=True))
        right = [name == row["category"] for name, row in zip(predicted, evaluated, strict=True)]
        assert np.mean(right) == pytest.approx(accuracy, abs=0.001)


def test_the_classes_of_tasks_that_were_exported_before_are_kept(tmp_path):
    path = tmp_path / "classes.json"
    tasks = {axis: {"classes": [f"{axis}1", "ü"], "image_size": 8} for axis in ("a", "b")}
    for axis in tasks:
        add_classes(path, {axis: tasks[axis]})
    assert json.loads(path.read_text("utf-8")) == tasks
    path.write_text("{")
    add_classes(path, tasks)
    assert json.loads(path.read_text("utf-8")) == tasks


def test_nothing_is_exported_where_one_of_the_models_exists(run_folder, tmp_path, capsys):
    (tmp_path / "category").mkdir()
    assert run_command(export, f"--workdir={run_folder}", f"--output={tmp_path}") == 1
    assert "category exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["category"]


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
