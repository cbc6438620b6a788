"""Where the figures come from: versions, hashes, device and speed, as a dict for metrics.json."""

import datetime
import hashlib
import importlib.metadata
import pathlib
import platform

from deepduel.evaluation.predictions import Predictions
from deepduel.prediction.predictor import Predictor
from deepduel.training import devices

_PACKAGES = (
    "tensorflow",
    "keras",
    "keras-cv",
    "numpy",
    "scikit-learn",
    "simplejpeg",
    "cykooz.resizer",
    "Pillow",
    "pillow-simd",
)


def about(predictor: Predictor, predictions: Predictions, *, workdir: str, flags: list[str]) -> dict:
    """The "about" of metrics.json.

    Args:
      workdir: folder of the run.
      flags: the command's flags that differ from their defaults, as written on the command line.
    """
    manifest = predictions.split.manifest
    card = predictor.card
    return {
        "run": pathlib.Path(workdir).resolve().name,
        "workdir": str(workdir),
        "data_dir": predictions.split.root,
        "data_name": manifest.name,
        "data_sha256": manifest.source,
        "trained_on_sha256": card.data_source,
        "same_data_set": manifest.source == card.data_source,
        "models": {axis: str(path) for axis, path in predictor.files.items()},
        "model_sha256": {axis: sha256(path) for axis, path in predictor.files.items()},
        "flags": " ".join(flags),
        "seed_of_the_run": card.seed,
        "image_size": "x".join(map(str, card.size)),
        "fit": card.fit,
        "images_per_second": round(predictions.images / predictions.seconds, 1)
        if predictions.images
        else None,
        "device": devices.description(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Installed versions of deepduel and of the packages on which the figures depend."""
    import deepduel

    installed = {"deepduel": getattr(deepduel, "__version__", "unknown")}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
