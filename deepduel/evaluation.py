"""A run's models over one labelled split, and what comes of it: the content of metrics.json.

    Predictor, Split -> Predictions (every record exactly once) -> document -> files

RUN/evaluation/<split>/metrics.json      the document; its form is described in `document`
RUN/evaluation/<split>/predictions.csv   per record: key, true and predicted label, probabilities
RUN/evaluation/<split>/report.html       the document for people, see report
"""

import csv
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Iterator

import numpy as np

from deepduel import bootstrap, calibration, metrics, pipeline, shortcuts
from deepduel.predictor import Predictor
from deepduel.publish import published
from deepduel.shards import Split
from tfrecords_tools import records
from tfrecords_tools.cli import DataError, UsageError
from tfrecords_tools.progress import Progress

FORMAT = "deepduel-metrics"
FORMAT_VERSION = 1
CURVE_POINTS = 200
HISTOGRAM_BINS = 40


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What the models say of every record of a split.

    Attributes:
      split: the records.
      classes: label names by axis, as the run numbers them.
      labels: {axis: int64 [N]} in the run's numbers, -1 for no label.
      probabilities: {axis: float32 [N, classes]}.
      colours: float32 [N, 6], mean and standard deviation of each channel, 0..255.
      seconds: that reading and predicting took, the first batch (compilation) left out where there are more.
      images: that were predicted in those seconds.
    """

    split: Split
    classes: dict[str, tuple[str, ...]]
    labels: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    colours: np.ndarray
    seconds: float
    images: int

    @property
    def axes(self) -> list[str]:
        """The evaluated axes."""
        return list(self.labels)


def open_split(
    data_dir: str | os.PathLike, name: str, predictor: Predictor
) -> tuple[Split, dict[str, np.ndarray]]:
    """The split, and its labels in the run's numbers for each of the predictor's axes.

    Raises:
      UsageError: there is no such split, or it has no labels on any of the axes.
      DataError: the data are of other axes or classes than the run.
    """
    split = Split(data_dir, name)
    if not len(split):
        raise DataError(f"{data_dir}: split {name!r} holds no image")
    labels = {}
    for axis, classes in predictor.classes.items():
        if axis not in split.manifest.axes:
            raise DataError(
                f"{data_dir} has no label axis {axis!r} (it has {', '.join(split.manifest.axes) or 'none'}), "
                "but the run was trained on it; give the data of the run, or choose --tasks"
            )
        labels[axis] = _renumbered(split, axis, classes, data_dir)
    if all((numbers < 0).all() for numbers in labels.values()):
        raise UsageError(
            f"split {name!r} of {data_dir} has no labels for {', '.join(labels)}, and without them there is "
            f"nothing to evaluate; predict it: python -m deepduel.predict --images={data_dir} --split={name}"
        )
    return split, labels


def _renumbered(split: Split, axis: str, classes: tuple[str, ...], data_dir) -> np.ndarray:
    names = split.manifest.axes[axis]
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise DataError(
            f"{data_dir}: label axis {axis!r} has {', '.join(unknown)}, which the run does not know "
            f"(it learnt {', '.join(classes)}); give the data of the run, or choose --tasks"
        )
    numbers = np.array([classes.index(name) for name in names] + [-1], np.int64)
    return numbers[split.labels[axis]]  # label -1 picks the last


def predict(
    split: Split, labels: dict[str, np.ndarray], predictor: Predictor, reading: pipeline.Reading
) -> Predictions:
    """Runs the models over every record once."""
    probabilities = {
        axis: np.full((len(split), len(names)), np.nan, np.float32)
        for axis, names in predictor.classes.items()
    }
    colours = np.zeros((len(split), 6), np.float32)
    seen = np.zeros(len(split), np.int64)
    started, timed = time.perf_counter(), 0
    with Progress("evaluating", total=len(split)) as bar:
        for number, batch in enumerate(pipeline.eval_batches(split, reading)):
            found = predictor(batch["images"])
            numbers = batch["records"].numpy()
            real = numbers >= 0
            seen[numbers[real]] += 1
            colours[numbers[real]] = _colours(batch["images"])[real]
            for axis, part in found.items():
                probabilities[axis][numbers[real]] = part[real]
            if number == 0 and len(split) > len(numbers):
                started = time.perf_counter()  # the first batch was compilation
            else:
                timed += int(real.sum())
            bar.update(int(seen.sum()))
    if not (seen == 1).all():
        raise RuntimeError(f"{(seen != 1).sum()} of {len(split)} records were not read exactly once")
    seconds = time.perf_counter() - started
    _require_finite(probabilities, split)
    return Predictions(split, predictor.classes, labels, probabilities, colours, seconds, timed)


def _colours(images) -> np.ndarray:
    """uint8 [B, H, W, 3] -> [B, 6]; every fourth pixel tells it well enough."""
    pixels = images[:, ::2, ::2].numpy().astype(np.float32)
    return np.hstack([pixels.mean((1, 2)), pixels.std((1, 2))])


def _require_finite(probabilities: dict[str, np.ndarray], split: Split) -> None:
    for axis, part in probabilities.items():
        bad = ~np.isfinite(part).all(1)
        if bad.any():
            first = records.key_text(split.key(int(np.flatnonzero(bad)[0])))
            raise DataError(
                f"the {axis} model gives no finite probabilities for {bad.sum():,} of {len(part):,} images "
                f"(the first: {first}); its training diverged: choose an earlier --model=epoch-NN"
            )


def document(predictions: Predictions, about: dict, *, replicates: int = bootstrap.REPLICATES) -> dict:
    """The content of metrics.json.

    Args:
      about: where the figures come from; stands under "about".
      replicates: of the bootstrap; 0 leaves the intervals out.

    Returns:
      {"format", "format_version", "about",
       "split", "records", "tasks": {AXIS: {
          "classes", "positive": the positive class' name, None with more than two,
          "images": with a label on the axis, "unlabelled": without (left out of everything),
          "overall": figures, see `metrics.Score.document`, and "intervals": {figure: [low, high]}, 95 %,
          "class_scores": {CLASS: {"images", "precision", "recall", "f1"}},
          "confusion": [[images of class (row) predicted as class (column)]],
          "groups": {OTHER_AXIS: {LABEL: figures and intervals}},
          "cells": {"real/animals": {"images", "accuracy", "interval", "mean_probability"}},
          "calibration": see `calibration.document`, "shortcuts": see `shortcuts.document`,
          "curves": {…}: what the report draws}},
       "duplicates": see `shortcuts.duplicates`}
    """
    split = predictions.split
    tuning = calibration.tuning_slice([split.key(number) for number in range(len(split))])
    axes = [axis for axis in predictions.axes if (predictions.labels[axis] >= 0).any()]
    others = [Split(split.data_dir, name) for name in split.manifest.splits if name != split.name]
    tasks = {}
    with Progress("scoring", total=len(_PARTS) * len(axes) + 1, unit="parts") as bar:
        for axis in axes:
            tasks[axis] = {}
            for name, part in _parts(predictions, axis, tuning, replicates):
                tasks[axis][name] = part
                bar.update(sum(map(len, tasks.values())))
        copies = shortcuts.duplicates(split, others)
        bar.update(len(_PARTS) * len(axes) + 1)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "split": split.name,
        "records": len(split),
        "tasks": tasks,
        "duplicates": copies,
        "about": about,
    }


_PARTS = (
    "classes", "positive", "images", "unlabelled", "overall", "class_scores", "confusion", "groups", "cells",
    "calibration", "shortcuts", "curves",
)  # fmt: skip


def _parts(
    predictions: Predictions, axis: str, tuning: np.ndarray, replicates: int
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
    yield "unlabelled", int((~known).sum())
    overall = _figures(labels, probabilities, classes, replicates)
    yield "overall", overall
    yield "class_scores", metrics.class_scores(labels, predicted, classes)
    yield "confusion", metrics.confusion(labels, predicted, len(classes)).tolist()
    groups: dict = {other: {} for other in split.manifest.axes if other != axis}
    for other, by_label in groups.items():
        for name, here in _members(split, other, known):
            by_label[name] = _figures(labels[here], probabilities[here], classes, replicates)
    yield "groups", groups
    yield "cells", _cells(predictions, known, labels, probabilities)
    yield "calibration", calibration.document(labels, probabilities, tuning[known])
    accuracy = overall["balanced_accuracy"]
    yield "shortcuts", shortcuts.document(split, known, labels, predictions.colours, accuracy)
    yield "curves", curves(labels, probabilities)


def _figures(labels: np.ndarray, probabilities: np.ndarray, classes: tuple, replicates: int) -> dict:
    found = metrics.score(labels, probabilities, classes).document()
    return found | {"intervals": bootstrap.intervals(labels, probabilities, replicates=replicates)}


def _members(split: Split, axis: str, known: np.ndarray):
    """(label name, mask over the known records) of each label of an axis that occurs."""
    numbers = split.labels[axis][known]
    for number in np.unique(numbers).tolist():
        yield split.manifest.label_name(axis, number), numbers == number


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


def curves(labels: np.ndarray, probabilities: np.ndarray) -> dict:
    """Points to draw: ROC, precision-recall, reliability, histogram of the positive class' probability."""
    bins = metrics.reliability(labels, probabilities)
    full = bins.count > 0
    drawn = {
        "reliability": {
            "confidence": bins.confidence[full].tolist(),
            "accuracy": bins.accuracy[full].tolist(),
            "images": bins.count[full].tolist(),
        }
    }
    if probabilities.shape[1] != 2:
        return drawn
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    drawn["histogram"] = [np.histogram(probabilities[labels == c, 1], edges)[0].tolist() for c in (0, 1)]
    if len(np.unique(labels)) == 2:
        drawn |= metrics.ranking_curves(labels, probabilities[:, 1], CURVE_POINTS)
    return drawn


def save(folder: pathlib.Path, document: dict, predictions: Predictions, report: str) -> None:
    """Publishes metrics.json, predictions.csv and report.html, each by rename; the report is last.

    Raises:
      DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with published(folder / "predictions.csv") as file:
            _write_rows(file, predictions)
        with published(folder / "metrics.json") as file:
            file.write(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        with published(folder / "report.html") as file:
            file.write(report)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}); evaluate writes into the run"
        ) from error


def _write_rows(file, predictions: Predictions) -> None:
    header = ["key"]
    for axis in predictions.axes:
        header += [axis, f"{axis}_predicted", *(f"p_{axis}_{name}" for name in predictions.classes[axis])]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for number in range(len(predictions.split)):
        row = [records.key_text(predictions.split.key(number))]
        for axis in predictions.axes:
            names, part = predictions.classes[axis], predictions.probabilities[axis][number]
            label = int(predictions.labels[axis][number])
            row += ["" if label < 0 else names[label], names[int(part.argmax())], *(f"{p:.6g}" for p in part)]
        writer.writerow(row)
