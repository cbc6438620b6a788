"""`.keras` files that older versions of Keras load too, wherever they have the layers.

A newer Keras writes the arguments that it added into every file, also where they hold their defaults, and an
older one refuses a file for an argument that it does not know. `save` leaves these out; a reader that knows
them uses its default, which is the same value. The weights are untouched.

    model.keras (ZIP)
      metadata.json       {"keras_version": …, "date_saved": …}
      config.json         the layers and their arguments
      model.weights.h5
"""

import json
import os
import pathlib
import re
import zipfile
from typing import Any

import keras

from tfrecords_tools.atomic import written_beside
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents

_CONFIG = "config.json"
# Arguments that layers and initializers have since Keras 3.11, with their defaults.
_NEWER = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}
# Operations such as keras.ops.flip write their name since Keras 3.11; their node in the graph has it anyway.
_OPERATIONS = "keras.src.ops."


def save(model: keras.Model, path: str | os.PathLike) -> None:
    """Publishes the model as a `.keras` file by rename.

    Example:
      keras_file.save(model, "model.keras")

    Raises:
      OSError: the file cannot be written.
    """
    with written_beside(path, ending=".keras") as partial:  # Keras requires the ending
        model.save(partial)
        _replace_config(partial)


def load(path: str | os.PathLike) -> keras.Model:
    """The model of a `.keras` file, not compiled.

    Raises:
      DataError: a newer Keras wrote the file, and this one cannot load it.
      Exception: the file is damaged; zipfile, h5py, json and Keras raise errors of their own.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # of any kind: it is raised again unless the version explains it
        version = _written_by(path)
        if _number(version) <= _number(keras.__version__):
            raise
        raise DataError(
            f"{path}: cannot be loaded: written by Keras {version}, this is {keras.__version__}; "
            f"pip install 'keras>={version}'"
        ) from error


def reason(error: Exception) -> str:
    """Why a file cannot be loaded, on one line: the first of the error's message, or else its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _replace_config(path: pathlib.Path) -> None:
    """Replaces the entry config.json by one without the arguments; the old one's bytes stay, unreferenced."""
    with zipfile.ZipFile(path, "a") as file:
        config = json.loads(file.read(_CONFIG))
        file.filelist.remove(file.NameToInfo.pop(_CONFIG))  # zipfile has no public way to remove an entry
        file.writestr(_CONFIG, json.dumps(_without_newer(config)))


def _without_newer(config: Any) -> Any:
    """The same serialized objects without arguments that are newer and hold their defaults."""
    if isinstance(config, list):
        return [_without_newer(part) for part in config]
    if not isinstance(config, dict):
        return config
    config = {name: _without_newer(part) for name, part in config.items()}
    arguments = config.get("config")
    if "class_name" in config and isinstance(arguments, dict):
        dropped = [name for name, default in _NEWER.items() if arguments.get(name, ...) == default]
        if str(config.get("module")).startswith(_OPERATIONS):
            dropped.append("name")
        config["config"] = {name: part for name, part in arguments.items() if name not in dropped}
    return config


def _written_by(path: str | os.PathLike) -> str:
    """The version of Keras that wrote the file; "0" where the file does not say."""
    try:
        with zipfile.ZipFile(path) as file:
            version = str(documents.parse(file.read("metadata.json"))["keras_version"])
            return version if re.fullmatch(r"[\w.+-]{1,30}", version) else "0"
    except Exception:  # zipfile raises errors of many kinds for damaged, encrypted and other files
        return "0"


def _number(version: str) -> list[int]:
    """ "3.15.1" -> [3, 15, 1], for comparisons; a part such as "0rc1" counts as 0."""
    return [int(part) if part.isdecimal() else 0 for part in version.split(".")]
