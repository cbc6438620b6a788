"""Predictions of a labelled split -> the content of metrics.json, and the files of an evaluation.

RUN/evaluation/<split>/metrics.json      the document; its form is described in `document`
RUN/evaluation/<split>/predictions.csv   per record: key, true and predicted label, probabilities
RUN/evaluation/<split>/report.html       the document for people, see report
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from deepduel.decoding.split import Split
from deepduel.evaluation import bootstrap, calibration, curves, metrics, shortcuts
from deepduel.evaluation import duplicates as picture_duplicates
from deepduel.evaluation.predictions import Predictions, write_csv
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.progress import Progress

FORMAT = "deepduel-metrics"
FORMAT_VERSION = 1


def document(
    predictions: Predictions,
    about: dict,
    *,
    columns: dict[str, np.ndarray] | None = None,
    found: picture_duplicates.Copies | None = None,
    replicates: int = bootstrap.REPLICATES,
) -> dict:
    """The content of metrics.json.

    Args:
      about: where the figures come from; stands under "about".
      found: copies of the images; None looks for exact ones.
      columns: {name: str per record} to group by besides the label axes, "" for no group.
      replicates: of the bootstrap; 0 leaves the intervals out.

    Returns:
      {"format", "format_version", "about",
       "split", "records": of the split, "left_out": of them, because they do not decode, "tasks": {AXIS: {
          "classes", "positive": the positive class' name, None with more than two,
          "images": with a label on the axis, "unlabelled": without (left out of everything),
          "overall": figures, see `metrics.Score.document`, and "intervals": {figure: [low, high]}, 95 %,
          "class_scores": {CLASS: {"images", "precision", "recall", "f1"}},
          "confusion": [[images of class (row) predicted as class (column)]],
          "groups": {OTHER_AXIS: {LABEL: figures and intervals}}, of the other label axes, then of `columns`;
             "auc_against_others" of a group within one of two classes: against all of the other class,
          "cells": {"real/animals": {"images", "accuracy", "interval", "mean_probability"}},
          "apart_from_copies": figures over the images that no other split has, where some are there,
          "calibration": see `calibration.document`, "shortcuts": see `shortcuts.document`,
          "curves": {…}: what the report draws}},
       "ungrouped": {column: images that are in none of its groups},
       "duplicates": see `copies.search`}
    """
    split = predictions.split
    out = predictions.left_out.tolist()
    tuning = calibration.tuning_slice(
        [b"" if out[number] else split.key(number) for number in range(len(split))]
    )
    axes = [axis for axis in predictions.axes if (predictions.labels[axis] >= 0).any()]
    columns = columns or {}
    found = found or picture_duplicates.search(split, "exact")
    tasks: dict[str, dict[str, Any]] = {}
    with Progress("scoring", total=len(_PARTS) * len(axes), unit="parts") as bar:
        for axis in axes:
            task = tasks[axis] = {}
            for name, part in _parts(predictions, axis, tuning, columns, found.elsewhere, replicates):
                task[name] = part
                bar.update(sum(len(each) for each in tasks.values()))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "split": split.name,
        "records": len(split),
        "left_out": sum(out),
        "tasks": tasks,
        "ungrouped": {name: int((values == "").sum()) for name, values in columns.items()},
        "duplicates": found.document,
        "about": about,
    }


_PARTS = (
    "classes", "positive", "images", "unlabelled", "overall", "class_scores", "confusion", "groups", "cells",
    "apart_from_copies", "calibration", "shortcuts", "curves",
)  # fmt: skip


def _parts(
    predictions: Predictions,
    axis: str,
    tuning: np.ndarray,
    columns: dict[str, np.ndarray],
    elsewhere: np.ndarray,
    replicates: int,
) -> Iterator[tuple[str, object]]:
    """The parts of a task in metrics.json, one by one, in the order of `_PARTS`."""
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
    members = _groups(split, axis, columns, known)
    figures_of = lambda here: _of_group(labels, probabilities, here, classes, replicates)
    yield (
        "groups",
        {by: {name: figures_of(here) for name, here in each.items()} for by, each in members.items()},
    )
    yield "cells", _cells(predictions, known, labels, probabilities)
    alone = ~elsewhere[known]
    yield (
        "apart_from_copies",
        None if alone.all() else metrics.score(labels[alone], probabilities[alone], classes).document(),
    )
    yield "calibration", calibration.document(labels, probabilities, tuning[known])
    accuracy = overall["balanced_accuracy"]
    yield "shortcuts", shortcuts.document(split, known, labels, predictions.colours, accuracy)
    yield "curves", curves.document(labels, probabilities)


def _figures(labels: np.ndarray, probabilities: np.ndarray, classes: tuple, replicates: int) -> dict:
    found = metrics.score(labels, probabilities, classes).document()
    return found | {"intervals": bootstrap.intervals(labels, probabilities, replicates=replicates)}


def _of_group(
    labels: np.ndarray, probabilities: np.ndarray, here: np.ndarray, classes: tuple, replicates: int
) -> dict:
    """Figures of a group; of one that lies in one of two classes, the AUC against all of the other too."""
    found = _figures(labels[here], probabilities[here], classes, replicates)
    own = np.unique(labels[here])
    if len(classes) == 2 and len(own) == 1:
        both = here | (labels != own[0])
        found["auc_against_others"] = metrics.score(labels[both], probabilities[both]).values["auc"]
    return found


def _groups(
    split: Split, axis: str, columns: dict[str, np.ndarray], known: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """{other axis or column: {label or value that occurs: mask over the known records}}."""
    found: dict = {}
    for other in split.manifest.axes:
        if other != axis:
            numbers = split.labels[other][known]
            found[other] = {
                split.manifest.label_name(other, number): numbers == number
                for number in np.unique(numbers).tolist()
            }
    for name, values in columns.items():
        values = values[known]
        found[name] = {value: values == value for value in sorted(set(values.tolist()) - {""})}
    return found


def _cells(
    predictions: Predictions, known: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> dict:
    """Per combination of labels of all axes, named as in the manifest."""
    manifest = predictions.split.manifest
    table = np.stack([predictions.split.labels[axis][known] for axis in manifest.axes], 1)
    right = probabilities.argmax(1) == labels
    own = probabilities[np.arange(len(labels)), labels]
    cells = {}
    for row in np.unique(table, axis=0):
        here = (table == row).all(1)
        name = "/".join(
            manifest.label_name(axis, int(label)) for axis, label in zip(manifest.axes, row, strict=True)
        )
        cells[name] = {
            "images": int(here.sum()),
            "accuracy": float(right[here].mean()),
            "interval": metrics.wilson(int(right[here].sum()), int(here.sum())),
            "mean_probability": float(own[here].mean()),
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
            f"{folder}: cannot be written ({error.strerror}); evaluate writes into the run"
        ) from error
