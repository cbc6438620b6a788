"""Labels that a model doubts: likely mistakes of labelling, by confident learning.

Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", as cleanlab computes it
from labels and predicted probabilities. The model must not have been trained on the images, or it has learnt
their wrong labels.
"""

import csv
import pathlib
import warnings
from typing import Any

import numpy as np

from deepduel.evaluation.predictions import Predictions
from tfrecords_tools import terminal
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records

FILE_NAME = "doubted_labels.csv"


def require() -> None:
    """Raises UsageError, which says what to install, where cleanlab is missing."""
    _library()


def doubted(predictions: Predictions, axis: str) -> np.ndarray:
    """Records whose label on an axis is doubted, int [n], the least probable label first.

    An image is doubted if it is predicted as another class than its label, and is among those that the
    estimated number of mislabelled images of its class and the predicted one covers.
    """
    known = np.flatnonzero(predictions.labels[axis] >= 0)
    labels = predictions.labels[axis][known]
    probabilities = predictions.probabilities[axis][known].astype(np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)
    if not (probabilities.argmax(1) != labels).any():
        return known[:0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few images
        chosen = _library().find_label_issues(
            labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    return known[np.asarray(chosen, int)]


def write(folder: pathlib.Path, predictions: Predictions, doubts: dict[str, np.ndarray]) -> None:
    """Publishes FOLDER/doubted_labels.csv: a row for each doubted label of each axis.

    Raises:
      DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with published(folder / FILE_NAME) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ("key", "task", "label", "predicted", "probability_of_label", "probability_of_predicted")
            )
            for axis, numbers in doubts.items():
                writer.writerows(_row(predictions, axis, number) for number in numbers.tolist())
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error


def _row(predictions: Predictions, axis: str, number: int) -> tuple[str, ...]:
    names, probabilities = predictions.classes[axis], predictions.probabilities[axis][number]
    label, predicted = int(predictions.labels[axis][number]), int(probabilities.argmax())
    return (
        terminal.path_cell(records.key_text(predictions.split.key(number))),
        terminal.word_cell(axis),
        terminal.word_cell(names[label]),
        terminal.word_cell(names[predicted]),
        f"{probabilities[label]:.6g}",
        f"{probabilities[predicted]:.6g}",
    )


def _library() -> Any:
    try:
        from cleanlab import filter as cleanlab_filter
    except ImportError as error:
        raise UsageError(
            f"--label_check needs cleanlab ({error}); install it with pip install 'deepduel[labels]'"
        ) from None
    return cleanlab_filter
