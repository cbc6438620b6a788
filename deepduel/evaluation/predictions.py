"""Split, Predictor -> Predictions: a run's models over a labelled split, every record exactly once."""

import csv
import dataclasses
import os
import time
from typing import IO

import numpy as np
import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.prediction.predictor import Predictor
from deepduel.reading import pipeline
from tfrecords_tools import cli, terminal
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.progress import Progress


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The models' predictions for every record of a split.

    Attributes:
      split: the N records.
      classes: {axis: label names}, in the order of the probabilities.
      left_out: bool [N], records that do not decode; they have no label.
      labels: {axis: int64 [N]}, indices into `classes`, -1 for no label.
      probabilities: {axis: float32 [N, classes]}.
      colours: float32 [N, 6], mean and standard deviation of each channel, 0..255.
      seconds: time of reading and predicting, without the first batch if there are more.
      images: number of images predicted in this time.
    """

    split: Split
    classes: dict[str, tuple[str, ...]]
    left_out: np.ndarray
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
    """Opens a split, and maps its labels to the class indices of the run, for each of the predictor's axes.

    Raises:
      UsageError: there is no such split, or it has no labels on any of the axes.
      DataError: the split is empty, or the data lack an axis of the run or have classes unknown to it.
    """
    split = Split(data_dir, name)
    if not len(split):
        raise DataError(f"{data_dir}: split {name!r} has no images")
    labels = {}
    for axis, classes in predictor.classes.items():
        if axis not in split.manifest.axes:
            raise DataError(
                f"{data_dir} has no label axis {axis!r} (it has {', '.join(split.manifest.axes) or 'none'}), "
                "but the run was trained on it; set --data_dir to the data of the run, or choose --tasks"
            )
        labels[axis] = _renumbered(split, axis, classes, data_dir)
    if all((numbers < 0).all() for numbers in labels.values()):
        words = ["--workdir=RUN", f"--images={data_dir}", f"--split={name}"]
        raise UsageError(
            f"split {name!r} of {data_dir} has no labels for {', '.join(labels)}, so there is nothing to "
            f"evaluate; to predict it, run {cli.command_line('deepduel.predict', words)}"
        )
    return split, labels


def _renumbered(split: Split, axis: str, classes: tuple[str, ...], data_dir: str | os.PathLike) -> np.ndarray:
    names = split.manifest.axes[axis]
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise DataError(
            f"{data_dir}: label axis {axis!r} has {', '.join(unknown)}, which the run was not trained on "
            f"(its classes are {', '.join(classes)}); "
            "set --data_dir to the data of the run, or choose --tasks"
        )
    lookup = np.array([numbers[name] for name in names] + [-1], np.int64)
    return lookup[split.labels[axis]]  # label -1 selects the last, -1


def predict(
    split: Split, labels: dict[str, np.ndarray], predictor: Predictor, reading: pipeline.ReadOptions
) -> Predictions:
    """Runs the models over every record once.

    Raises:
      DataError: a record does not decode (with `reading.on_error` "skip": none of the labelled ones does), or
        a model gives probabilities that are not finite.
    """
    probabilities = {
        axis: np.full((len(split), len(names)), np.nan, np.float32)
        for axis, names in predictor.classes.items()
    }
    colours = np.zeros((len(split), 6), np.float32)
    read = np.zeros(len(split), np.int64)  # how often each record was read
    left_out = np.zeros(len(split), bool)
    started, timed = time.perf_counter(), 0
    with Progress("evaluating", total=len(split)) as bar:
        for number, batch in enumerate(pipeline.eval_batches(split, reading)):
            predicted = predictor(batch["images"])
            numbers = batch["records"].numpy()
            real = numbers >= 0
            read[numbers[real]] += 1
            left_out[numbers[real]] = batch["weight"].numpy()[real] == 0
            colours[numbers[real]] = _colours(batch["images"])[real]
            for axis, part in predicted.items():
                probabilities[axis][numbers[real]] = part[real]
            if number == 0 and len(split) > len(numbers):
                started = time.perf_counter()  # the first batch includes compilation
            else:
                timed += int(real.sum())
            bar.update(int(read.sum()))
    if not (read == 1).all():
        raise RuntimeError(f"{(read != 1).sum()} of {len(split)} records were not read exactly once")
    seconds = time.perf_counter() - started
    labels = {axis: np.where(left_out, -1, numbers) for axis, numbers in labels.items()}
    if all((numbers < 0).all() for numbers in labels.values()):
        raise DataError(
            f"{split.data_dir}: none of the labelled images of split {split.name!r} can be decoded; "
            f"run python -m tfrecords_tools.verify --data_dir={split.data_dir} --decode"
        )
    _require_finite({axis: part[~left_out] for axis, part in probabilities.items()}, split, ~left_out)
    return Predictions(split, predictor.classes, left_out, labels, probabilities, colours, seconds, timed)


def _colours(images: tf.Tensor) -> np.ndarray:
    """uint8 [B, H, W, 3] -> float32 [B, 6], mean and standard deviation per channel of every fourth pixel."""
    pixels = images[:, ::2, ::2].numpy().astype(np.float32)
    return np.hstack([pixels.mean((1, 2)), pixels.std((1, 2))])


def _require_finite(probabilities: dict[str, np.ndarray], split: Split, predicted: np.ndarray) -> None:
    for axis, part in probabilities.items():
        bad = ~np.isfinite(part).all(1)
        if bad.any():
            first = records.key_shown(split.key(int(np.flatnonzero(predicted)[bad.argmax()])))
            raise DataError(
                f"the {axis} model gives NaN or infinite probabilities for {bad.sum():,} of {len(part):,} "
                f"images (the first: {first}); its training diverged; "
                "choose an earlier model with --model=epoch-NN"
            )


def write_csv(file: IO[str], predictions: Predictions) -> None:
    """Writes predictions.csv: key, then per axis the true and predicted label and the probabilities.

    Records that were left out have no row.
    """
    header = ["key"]
    for axis in predictions.axes:
        header += [axis, f"{axis}_predicted", *(f"p_{axis}_{name}" for name in predictions.classes[axis])]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for number in np.flatnonzero(~predictions.left_out).tolist():
        row = [terminal.path_cell(records.key_text(predictions.split.key(number)))]
        for axis in predictions.axes:
            names, part = predictions.classes[axis], predictions.probabilities[axis][number]
            label = int(predictions.labels[axis][number])
            row += [
                "" if label < 0 else terminal.word_cell(names[label]),
                terminal.word_cell(names[int(part.argmax())]),
                *(f"{p:.6g}" for p in part),
            ]
        writer.writerow(row)
