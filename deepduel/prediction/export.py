"""A run's models for programs that know neither Keras nor this project.

    OUTPUT/<task>/          savedmodel: TensorFlow SavedModel, endpoint `serve`
    OUTPUT/<task>.onnx      onnx
    OUTPUT/classes.json     {task: {"classes": names in the order of the outputs, "image_size": pixels}}

Both take float32 pixels 0..255 [B, S, S, 3] and give float32 probabilities [B, classes].
"""

import importlib.util
import json
import pathlib
import shutil

import keras
import numpy as np

from deepduel.prediction.predictor import Predictor
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError

FORMATS = ("savedmodel", "onnx")


def export(predictor: Predictor, output: str, form: str) -> list[pathlib.Path]:
    """Writes every task's model; each appears under its name once it is whole. Returns their paths.

    Raises:
      UsageError: the library for the format is missing.
      DataError: the folder cannot be written or holds something else.
    """
    if form == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise UsageError(
            "--export=onnx needs the package tf2onnx: pip install tf2onnx; or use --export=savedmodel"
        )
    folder = pathlib.Path(output)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for axis, model in predictor.models.items():
            path = folder / (axis if form == "savedmodel" else f"{axis}.onnx")
            if path.exists():
                raise DataError(f"{path} exists already; give another --output, or remove it")
            partial = folder / f".{path.stem}.partial{path.suffix}"
            _remove(partial)
            if form == "savedmodel":
                # Named, since older Keras takes a list of inputs otherwise.
                pixels = keras.layers.InputSpec("float32", shape=(None, *model.input_shape[1:]))
                model.export(partial, format="tf_saved_model", input_signature=[pixels], verbose=False)
            else:
                model(
                    np.zeros((1, *model.input_shape[1:]), np.float32)
                )  # Keras' exporter wants a called model
                model.export(partial, format="onnx", verbose=False)
            partial.replace(path)
            written.append(path)
        tasks = {axis: predictor.card.tasks[axis] for axis in predictor.models}
        with published(folder / "classes.json") as file:
            file.write(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"--output={output}: cannot be written ({error.strerror or error})") from error
    return written


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
