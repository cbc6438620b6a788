"""Predictions of a labelled split -> the content of metrics.json, and the files of an evaluation.

    RUN/evaluation/<split>/metrics.json      the document below
    RUN/evaluation/<split>/predictions.csv   per record: key, true and predicted label, probabilities
    RUN/evaluation/<split>/doubted_labels.csv   see `label_check`
    RUN/evaluation/<split>/report.html       the document as a page, see `reports.report_page`

metrics.json, in which a figure is null where the images do not define it:

    format, format_version
    split         its name
    records       number of records in the split
    left_out      number of records that do not decode and are left out of all figures
    tasks         {AXIS: {
      classes            label names, in the order of the probabilities
      positive           name of the positive class; null with more than two classes
      images             number of images with a label on the axis
      unlabelled         number of images without one, left out of all figures of the task
      overall            figures, see `metrics.Score.document`, and intervals: {figure: [low, high]}, 95 %
      class_scores       {CLASS: {images, precision, recall, f1}}
      confusion          [[images of the class (row) that are predicted as the class (column)]]
      groups             {other axis or column: {value: figures and intervals}}; where all images of a group
                         are of one of two classes, auc_against_others: AUC against all of the other class
      cells              {"real/animals": {images, accuracy, interval, mean_probability}}
      apart_from_copies  figures over the images without a duplicate in another split; null if all are
      calibration        see `calibration.document`
      shortcuts          see `shortcuts.document`
      curves             points for the report's plots, see `curves.document`
      label_check        with --label_check: {doubted: number of labels in doubted_labels.csv}
    }}
    ungrouped     {column: number of images that are in none of its groups}
    duplicates    see `duplicates.search`
    about         where the figures come from, see `provenance.about`
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from deepduel.decoding.split import Split
from deepduel.evaluation import bootstrap, calibration, curves, metrics, shortcuts
from deepduel.evaluation import duplicates as duplicate_search
from deepduel.evaluation.predictions import Predictions, write_csv
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.progress import Progress

FORMAT = "deepduel-metrics"
FORMAT_VERSION = 1
PARTS = (  # of a task, in this order
    "classes", "positive", "images", "unlabelled", "overall", "class_scores", "confusion", "groups", "cells",
    "apart_from_copies", "calibration", "shortcuts", "curves",
)  # fmt: skip


def document(
    predictions: Predictions,
    about: dict,
    *,
    columns: dict[str, np.ndarray] | None = None,
    duplicates: duplicate_search.Duplicates | None = None,
    replicates: int = bootstrap.REPLICATES,
) -> dict:
    """The content of metrics.json, which the top of this module describes.

    Args:
      about: where the figures come from, see `provenance.about`.
      columns: {name: str [records]} to group by besides the label axes; "" for images in no group.
      duplicates: the duplicates of the images; None searches for exact ones.
      replicates: number of bootstrap samples; 0 leaves the intervals out.
    """
    split = predictions.split
    columns = columns or {}
    if duplicates is None:
        duplicates = duplicate_search.search(split, "exact")
    tuning = _tuning_slice(predictions)
    axes = [axis for axis in predictions.axes if (predictions.labels[axis] >= 0).any()]
    tasks: dict[str, dict[str, Any]] = {axis: {} for axis in axes}
    with Progress("scoring", total=len(PARTS) * len(axes), unit="parts") as bar:
        for axis, task in tasks.items():
            parts = _parts(predictions, axis, tuning, columns, duplicates.in_other_splits, replicates)
            for name, part in parts:
                task[name] = part
                bar.update(sum(len(each) for each in tasks.values()))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "split": split.name,
        "records": len(split),
        "left_out": int(predictions.left_out.sum()),
        "tasks": tasks,
        "ungrouped": {name: int((values == "").sum()) for name, values in columns.items()},
        "duplicates": duplicates.document,
        "about": about,
    }


def _tuning_slice(predictions: Predictions) -> np.ndarray:
    """Records on which calibration is fitted, bool [N]; the keys of damaged records are not read."""
    split = predictions.split
    keys = [
        b"" if left_out else split.key(number)
        for number, left_out in enumerate(predictions.left_out.tolist())
    ]
    return calibration.tuning_slice(keys)


def _parts(
    predictions: Predictions,
    axis: str,
    tuning: np.ndarray,
    columns: dict[str, np.ndarray],
    in_other_splits: np.ndarray,
    replicates: int,
) -> Iterator[tuple[str, object]]:
    """The parts of a task in metrics.json, one by one, in the order of `PARTS`."""
    split, classes = predictions.split, predictions.classes[axis]
    known = predictions.labels[axis] >= 0
    labels, probabilities = metrics.checked(
        predictions.labels[axis][known], predictions.probabilities[axis][known]
    )
    predicted = probabilities.argmax(1)
    yield "classes", list(classes)
    yield "positive", classes[1] if len(classes) == 2 else None
    yield "images", int(known.sum())
    yield "unlabelled", int((~known & ~predictions.left_out).sum())
    overall = _figures(labels, probabilities, classes, replicates)
    yield "overall", overall
    yield "class_scores", metrics.class_scores(labels, predicted, classes)
    yield "confusion", metrics.confusion(labels, predicted, len(classes)).tolist()
    groups: dict[str, dict[str, dict]] = {}
    for grouping, masks in _group_masks(split, axis, columns, known).items():
        groups[grouping] = {
            name: _group_figures(labels, probabilities, mask, classes, replicates)
            for name, mask in masks.items()
        }
    yield "groups", groups
    yield "cells", _cells(predictions, known, labels, probabilities)
    yield "apart_from_copies", _figures_without(in_other_splits[known], labels, probabilities, classes)
    yield "calibration", calibration.document(labels, probabilities, tuning[known])
    accuracy = overall["balanced_accuracy"]
    yield "shortcuts", shortcuts.document(split, known, labels, predictions.colours, accuracy)
    yield "curves", curves.document(labels, probabilities)


def _figures(labels: np.ndarray, probabilities: np.ndarray, classes: tuple, replicates: int) -> dict:
    figures = metrics.score(labels, probabilities, classes).document()
    return figures | {"intervals": bootstrap.intervals(labels, probabilities, replicates=replicates)}


def _figures_without(
    duplicated: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: tuple
) -> dict | None:
    """The figures without the images that another split has too; None when there are no such images."""
    if not duplicated.any():
        return None
    return metrics.score(labels[~duplicated], probabilities[~duplicated], classes).document()


def _group_figures(
    labels: np.ndarray, probabilities: np.ndarray, mask: np.ndarray, classes: tuple, replicates: int
) -> dict:
    """The figures of a group; for a group within one of two classes also the AUC against the other class."""
    figures = _figures(labels[mask], probabilities[mask], classes, replicates)
    present = np.unique(labels[mask])
    if len(classes) == 2 and len(present) == 1:
        both = mask | (labels != present[0])
        figures["auc_against_others"] = metrics.score(labels[both], probabilities[both]).values["auc"]
    return figures


def _group_masks(
    split: Split, axis: str, columns: dict[str, np.ndarray], known: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """{other axis or column: {label or value that occurs: mask over the labelled records}}."""
    masks: dict[str, dict[str, np.ndarray]] = {}
    for other in split.manifest.axes:
        if other != axis:
            numbers = split.labels[other][known]
            masks[other] = {
                split.manifest.label_name(other, number): numbers == number
                for number in np.unique(numbers).tolist()
            }
    for name, values in columns.items():
        labelled = values[known]
        masks[name] = {value: labelled == value for value in sorted(set(labelled.tolist()) - {""})}
    return masks


def _cells(
    predictions: Predictions, known: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> dict:
    """Accuracy for each combination of labels on all axes, named as in the manifest."""
    manifest = predictions.split.manifest
    table = np.stack([predictions.split.labels[axis][known] for axis in manifest.axes], 1)
    correct = probabilities.argmax(1) == labels
    true_class = probabilities[np.arange(len(labels)), labels]
    cells = {}
    for row in np.unique(table, axis=0):
        mask = (table == row).all(1)
        name = "/".join(
            manifest.label_name(axis, int(label)) for axis, label in zip(manifest.axes, row, strict=True)
        )
        cells[name] = {
            "images": int(mask.sum()),
            "accuracy": float(correct[mask].mean()),
            "interval": metrics.wilson(int(correct[mask].sum()), int(mask.sum())),
            "mean_probability": float(true_class[mask].mean()),
        }
    return cells


def save(folder: pathlib.Path, document: dict, predictions: Predictions, report: str) -> None:
    """Publishes metrics.json, predictions.csv and report.html, each by rename; the report is last.

    Raises:
      DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with published(folder / "predictions.csv") as file:
            write_csv(file, predictions)
        with published(folder / "metrics.json") as file:
            file.write(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        with published(folder / "report.html") as file:
            file.write(report)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}); "
            "the evaluation needs write access to the folder of the run"
        ) from error
