"""Exports a run's models for programs without deepduel.

    OUTPUT/<task>.keras     a Keras model, with the format keras
    OUTPUT/<task>/          a TensorFlow SavedModel with the endpoint `serve`, with the format savedmodel
    OUTPUT/<task>.onnx      an ONNX model, with the format onnx
    OUTPUT/<task>.tflite    a LiteRT model for phones and small devices, with the format litert
    OUTPUT/classes.json     {task: {"classes": names in the order of the outputs, "image_size": pixels}}, of
                            all tasks that were exported there

They take images of any size and resize them as the run does, see `networks.serving_model`. Those of the
formats onnx and litert give the probabilities alone.
"""

import importlib.util
import json
import pathlib
import tempfile

import keras
import numpy as np

from deepduel.networks import keras_file, serving_model
from deepduel.networks.run_card import TaskCard
from deepduel.prediction.predictor import Predictor
from tfrecords_tools.atomic import published, written_beside
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import documents
from tfrecords_tools.format.documents import AxisName

_ENDINGS = {"keras": ".keras", "savedmodel": "", "onnx": ".onnx", "litert": ".tflite"}
FORMATS = tuple(_ENDINGS)


def export(predictor: Predictor, output: str, form: str) -> list[pathlib.Path]:
    """Writes the model of every task and returns the paths. Each appears under its name when it is complete.

    Args:
      output: folder to write to; it is created where it is missing.
      form: one of `FORMATS`.

    Raises:
      UsageError: the package that writes the format is missing.
      DataError: the folder cannot be written, or a model of that name exists there.
    """
    if form == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise UsageError(
            "format onnx needs the package tf2onnx: pip install 'deepduel[onnx]'; or use savedmodel"
        )
    folder = pathlib.Path(output)
    paths = {axis: folder / f"{axis}{_ENDINGS[form]}" for axis in predictor.classes}
    for path in paths.values():
        if path.exists():
            raise DataError(f"{path} exists already; set another --output, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _add_classes(folder / "classes.json", {axis: predictor.card.tasks[axis] for axis in paths})
        for axis, path in paths.items():
            with written_beside(path, ending=path.suffix) as partial:
                _export(
                    predictor.models[axis], predictor.framing(axis), predictor.classes[axis], partial, form
                )
    except OSError as error:
        raise DataError(f"--output={output}: cannot be written ({error.strerror or error})") from error
    return list(paths.values())


def _add_classes(path: pathlib.Path, tasks: dict[str, TaskCard]) -> None:
    """Publishes classes.json with these tasks, and those of earlier exports to the same folder."""
    try:
        earlier = documents.read_file(path, dict[AxisName, TaskCard])
    except (FileNotFoundError, ValueError):
        earlier = {}
    with published(path) as file:
        file.write(json.dumps(earlier | tasks, indent=1, ensure_ascii=False) + "\n")


def _export(
    model: keras.Model,
    framing: serving_model.Framing,
    classes: tuple[str, ...],
    path: pathlib.Path,
    form: str,
) -> None:
    if form in ("onnx", "litert"):
        serving = serving_model.build_probabilities(model, framing)
        serving(np.zeros((1, *framing.size, 3), np.float32))  # Keras' ONNX exporter requires a call
    else:
        serving = serving_model.build(model, framing, classes)
    if form == "keras":
        keras_file.save(serving, path)
    elif form == "onnx":
        serving.export(path, format="onnx", verbose=False)
    elif form == "savedmodel":
        _save(serving, path)
    else:
        _save_lite(serving, path)


def _save(serving: keras.Model, path: str | pathlib.Path) -> None:
    # Without a named signature older versions of Keras export a list of inputs.
    serving.export(path, format="tf_saved_model", input_signature=serving.inputs, verbose=False)


def _save_lite(serving: keras.Model, path: pathlib.Path) -> None:
    """What `Model.export(format="litert")` of Keras 3.13 does, in older versions too."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        _save(serving, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        try:
            data = converter.convert()
        except Exception as error:  # the converter raises errors of its own
            reason = str(error).strip().splitlines()[0]
            raise DataError(
                f"{serving.name}: LiteRT cannot compute this network ({reason}); use another --format"
            ) from error
    path.write_bytes(data)
