"""Exports a run's models for programs without Keras and without deepduel.

    OUTPUT/<task>/          a TensorFlow SavedModel with the endpoint `serve`, with the format savedmodel
    OUTPUT/<task>.onnx      an ONNX model, with the format onnx
    OUTPUT/classes.json     {task: {"classes": names in the order of the outputs, "image_size": pixels}}

The exported models map float32 pixels 0..255 [B, S, S, 3] to float32 probabilities [B, classes].
"""

import importlib.util
import json
import pathlib

import keras
import numpy as np

from deepduel.prediction.predictor import Predictor
from tfrecords_tools.atomic import published, written_beside
from tfrecords_tools.errors import DataError, UsageError

FORMATS = ("savedmodel", "onnx")


def export(predictor: Predictor, output: str, form: str) -> list[pathlib.Path]:
    """Writes the model of every task and returns the paths. Each appears under its name when it is complete.

    Args:
      output: folder to write to; it is created where it is missing.
      form: "savedmodel" or "onnx".

    Raises:
      UsageError: the package that writes the format is missing.
      DataError: the folder cannot be written, or a model of that name exists there.
    """
    if form == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise UsageError(
            "format onnx needs the package tf2onnx: pip install 'deepduel[onnx]'; or use savedmodel"
        )
    folder = pathlib.Path(output)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for axis, model in predictor.models.items():
            path = folder / (axis if form == "savedmodel" else f"{axis}.onnx")
            if path.exists():
                raise DataError(f"{path} exists already; set another --output, or remove it")
            with written_beside(path, ending=path.suffix) as partial:
                _export(model, partial, form)
            written.append(path)
        tasks = {axis: predictor.card.tasks[axis] for axis in predictor.models}
        with published(folder / "classes.json") as file:
            file.write(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"--output={output}: cannot be written ({error.strerror or error})") from error
    return written


def _export(model: keras.Model, path: pathlib.Path, form: str) -> None:
    if form == "savedmodel":
        # Without a named signature older versions of Keras export a list of inputs.
        pixels = keras.layers.InputSpec("float32", shape=(None, *model.input_shape[1:]))
        model.export(path, format="tf_saved_model", input_signature=[pixels], verbose=False)
    else:
        # Keras' ONNX exporter requires that the model was called.
        model(np.zeros((1, *model.input_shape[1:]), np.float32))
        model.export(path, format="onnx", verbose=False)
