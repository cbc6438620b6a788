"""Temperature and decision threshold, fitted on one part of the images and evaluated on the other.

    labels         int   [N]      0 … C-1
    probabilities  float [N, C]   rows sum to 1

A fifth of the images, chosen by their keys alone, is the tuning slice. On it are fitted:
- a temperature T: probabilities become softmax(log p / T), so that the mean confidence matches the
  accuracy (Guo et al. 2017, "On Calibration of Modern Neural Networks");
- with two classes, the threshold on the positive class' calibrated probability that gives the best
  balanced accuracy.
Both are evaluated on the other four fifths.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Annotated

import msgspec
import numpy as np
from scipy import optimize

from deepduel.evaluation import metrics
from tfrecords_tools import cli
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents

SLICE = 5  # one image in five belongs to the tuning slice
_MIN_IMAGES = 20  # of the tuning slice and of the other images; with fewer nothing is fitted


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fitted calibration of one task.

    Attributes:
      temperature: above 1 it lowers the confidence, below 1 it raises it.
      threshold: calibrated probability above which the positive class is predicted; None with more classes.
    """

    temperature: float
    threshold: float | None

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities [N, C] -> calibrated probabilities, float64 [N, C]."""
        return tempered(probabilities, self.temperature)

    def decide(self, calibrated: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [N, C] -> predicted classes, int [N]."""
        if self.threshold is None:
            return calibrated.argmax(1)
        return (calibrated[:, 1] > self.threshold).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class _Fitted:
    """The "calibration" of a task in metrics.json, as far as it is read: see `document`."""

    note: str | None = None
    temperature: Annotated[float, msgspec.Meta(ge=1e-3, le=1e3)] | None = None
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


@dataclasses.dataclass(frozen=True)
class _TaskMetrics:
    calibration: _Fitted = _Fitted("the split has no labels for it")


@dataclasses.dataclass(frozen=True)
class _About:
    model_sha256: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Metrics:
    """metrics.json, as far as it is read here."""

    about: _About
    tasks: dict[str, _TaskMetrics]


def tuning_slice(keys: list[bytes]) -> np.ndarray:
    """Whether each image belongs to the tuning slice: bool [N], a function of its key alone."""
    return np.array([hashlib.blake2b(key, digest_size=8).digest()[0] % SLICE == 0 for key in keys], bool)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / temperature), float64 [N, C]."""
    logs = np.log(np.asarray(probabilities, np.float64).clip(1e-12, 1)) / temperature
    powers = np.exp(logs - logs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Fits the temperature by log loss and, with two classes, the threshold by balanced accuracy."""
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -np.log(tempered(probabilities, np.exp(log_temperature))[rows, labels].clip(1e-12)).mean()

    temperature = float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    if probabilities.shape[1] != 2:
        return Calibration(temperature, None)
    return Calibration(temperature, _threshold(labels, tempered(probabilities, temperature)[:, 1]))


def _threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The midpoint of two neighbouring scores; of several equally good ones that nearest to 0.5."""
    values = np.unique(scores)
    between = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [1.0]])
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    positive_recall = 1 - np.searchsorted(positives, between, "right") / max(1, len(positives))
    negative_recall = np.searchsorted(negatives, between, "right") / max(1, len(negatives))
    balanced = positive_recall + negative_recall
    best = between[balanced >= balanced.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def document(labels: np.ndarray, probabilities: np.ndarray, tuning: np.ndarray) -> dict:
    """The "calibration" of a task in metrics.json.

    Returns:
      {"tuned_on", "judged_on": number of images, "temperature", "threshold",
       "before", "after": {"accuracy", "balanced_accuracy", "log_loss", "ece"} on the images "judged_on"},
      or {"note": the reason why nothing was fitted}.
    """
    parts = [labels[tuning], labels[~tuning]]
    if min(map(len, parts)) < _MIN_IMAGES or any(
        len(np.unique(part)) < probabilities.shape[1] for part in parts
    ):
        return {
            "note": f"needs {_MIN_IMAGES} images and every class, both in the tuning slice and outside it"
        }
    fitted = fit(labels[tuning], probabilities[tuning])
    truth, raw = labels[~tuning], probabilities[~tuning]
    calibrated = fitted.probabilities(raw)
    return {
        "tuned_on": int(tuning.sum()),
        "judged_on": len(truth),
        **dataclasses.asdict(fitted),
        "before": _figures(truth, raw, raw.argmax(1)),
        "after": _figures(truth, calibrated, fitted.decide(calibrated)),
    }


def _figures(labels: np.ndarray, probabilities: np.ndarray, decided: np.ndarray) -> dict[str, float | None]:
    values = metrics.score(labels, probabilities).values
    return {
        "accuracy": float((decided == labels).mean()),
        "balanced_accuracy": float(np.nanmean(metrics.recalls(labels, decided, probabilities.shape[1]))),
        "log_loss": values["log_loss"],
        "ece": values["ece"],
    }


def load(workdir: str | os.PathLike, split: str, model_sha256: dict[str, str]) -> dict[str, Calibration]:
    """Reads the calibration of each axis from an evaluation of the same models.

    Args:
      workdir: folder of the run.
      split: the split that was evaluated.
      model_sha256: {axis: hash of the model file}, see `provenance.sha256`.

    Raises:
      DataError: there is no such evaluation, it is of other models, or nothing was fitted.
    """
    path = pathlib.Path(workdir, "evaluation", split, "metrics.json")
    words = [f"--workdir={workdir}", "--data_dir=SHARDS", f"--split={split}"]
    remedy = f"run {cli.command_line('deepduel.evaluate', words)} with the same --model first"
    try:
        metrics = documents.read_file(path, _Metrics)
    except FileNotFoundError:
        raise DataError(f"--calibration={split}: there is no {path}; {remedy}") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: unreadable ({error}); {remedy}") from error
    calibrations = {}
    for axis, digest in model_sha256.items():
        if metrics.about.model_sha256.get(axis) != digest:
            raise DataError(f"{path}: belongs to another {axis} model; {remedy}")
        task = metrics.tasks.get(axis, _TaskMetrics()).calibration
        if task.note is not None or task.temperature is None:
            raise DataError(
                f"{path}: has no calibration of {axis} ({task.note}); leave --calibration out, or evaluate a "
                "split of more images"
            )
        calibrations[axis] = Calibration(task.temperature, task.threshold)
    return calibrations
