"""Decisions fitted on one part of the images and judged on the other.

A fifth of the images, chosen by their keys alone, is the tuning slice. On it are fitted
- a temperature T: probabilities become softmax(log p / T), so that the model is as sure as it is
  right (Guo et al. 2017, "On Calibration of Modern Neural Networks");
- for two classes, the threshold on the positive class' calibrated probability that gives the best
  balanced accuracy.
What both bring is stated on the other four fifths, which took no part in it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib

import numpy as np
from scipy import optimize

from deepduel.evaluation import metrics
from tfrecords_tools.errors import DataError

SLICE = 5  # one image in so many is for tuning
_LEAST = 20  # images in each part; below that nothing is fitted


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Attributes:
    temperature: above 1 makes probabilities less sure, below 1 surer.
    threshold: the positive class is called above this calibrated probability; None with more classes.
    """

    temperature: float
    threshold: float | None

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """[N, C] -> calibrated, float64 [N, C]."""
        return tempered(probabilities, self.temperature)

    def decide(self, calibrated: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [N, C] -> classes int [N]."""
        if self.threshold is None:
            return calibrated.argmax(1)
        return (calibrated[:, 1] > self.threshold).astype(np.int64)


def tuning_slice(keys: list[bytes]) -> np.ndarray:
    """Which images are for tuning: bool [N], a function of each key alone."""
    return np.array([hashlib.blake2b(key, digest_size=8).digest()[0] % SLICE == 0 for key in keys], bool)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(log p / temperature), float64 [N, C]."""
    logs = np.log(np.asarray(probabilities, np.float64).clip(1e-12, 1)) / temperature
    powers = np.exp(logs - logs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """The temperature of least log loss and, for two classes, the threshold of best balanced accuracy."""
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -np.log(tempered(probabilities, np.exp(log_temperature))[rows, labels].clip(1e-12)).mean()

    temperature = float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    if probabilities.shape[1] != 2:
        return Calibration(temperature, None)
    return Calibration(temperature, _threshold(labels, tempered(probabilities, temperature)[:, 1]))


def _threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """Half way between two neighbouring scores; among equally good ones the one nearest 0.5."""
    values = np.unique(scores)
    between = np.concatenate([[0.0], (values[:-1] + values[1:]) / 2, [1.0]])
    order = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    above = 1 - np.searchsorted(order[0], between, "right") / max(1, len(order[0]))
    below = np.searchsorted(order[1], between, "right") / max(1, len(order[1]))
    balanced = above + below
    best = between[balanced >= balanced.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def document(labels: np.ndarray, probabilities: np.ndarray, tuning: np.ndarray) -> dict:
    """The "calibration" of a task in metrics.json.

    Returns:
      {"tuned_on", "judged_on": images, "temperature", "threshold",
       "before", "after": {"accuracy", "balanced_accuracy", "log_loss", "ece"} on the judged images},
      or {"note": why nothing was fitted}.
    """
    parts = [labels[tuning], labels[~tuning]]
    if min(map(len, parts)) < _LEAST or any(len(np.unique(part)) < probabilities.shape[1] for part in parts):
        return {"note": f"needs {_LEAST} images and every class, both in the tuning slice and beside it"}
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
    """The calibration by axis that an evaluation of the same models left in the run.

    Args:
      model_sha256: of the models to be calibrated, by axis.

    Raises:
      DataError: there is no such evaluation, it is of other models, or nothing was fitted.
    """
    path = pathlib.Path(workdir, "evaluation", split, "metrics.json")
    again = (
        f"run python -m deepduel.evaluate --workdir={workdir} --data_dir=SHARDS --split={split} "
        "with the same --model first"
    )
    try:
        found = json.loads(path.read_text("utf-8"))
        known, tasks = found["about"]["model_sha256"], found["tasks"]
    except FileNotFoundError:
        raise DataError(f"--calibration={split}: there is no {path}; {again}") from None
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{path}: unreadable ({error}); {again}") from error
    fitted = {}
    for axis, digest in model_sha256.items():
        if known.get(axis) != digest:
            raise DataError(f"{path}: was not written for this {axis} model; {again}")
        part = tasks.get(axis, {}).get("calibration", {"note": "the split has no labels for it"})
        if "note" in part:
            raise DataError(f"{path}: has no calibration of {axis} ({part['note']})")
        fitted[axis] = Calibration(part["temperature"], part["threshold"])
    return fitted
