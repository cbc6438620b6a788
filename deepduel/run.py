"""`Run`: a trained run, to evaluate, to predict with, and to look at in a notebook."""

import contextlib
import csv
import os
import pathlib
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from absl import flags
from PIL import Image

import deepduel.evaluate as evaluate_command
import deepduel.predict as predict_command
from deepduel import keywords
from deepduel.networks.run_card import RunCard
from tfrecords_tools import cli, regular_files, terminal
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import documents, manifest, storage

if TYPE_CHECKING:  # these load TensorFlow
    from deepduel.evaluation.saved_evaluation import SavedEvaluation
    from deepduel.prediction.image_predictions import ImagePrediction
    from deepduel.prediction.predictor import Predictor
    from deepduel.reports.tables import Table

__all__ = ["Run"]

AnyImage: TypeAlias = str | os.PathLike | np.ndarray | Image.Image

_OF_EVALUATE = keywords.option_names(evaluate_command, without=("workdir", "data_dir", keywords.FLAGFILE))
_OF_PREDICT = keywords.option_names(
    predict_command, without=("workdir", "images", "output", "format", "probabilities", keywords.FLAGFILE)
)


class Run:
    """A run that was trained.

    Its tables are lists of dicts, which `pandas.DataFrame` takes; a notebook shows them, with the pictures of
    the images in them.

    Attributes:
      path: its folder.
      classes: {axis: label names}, in the order of the probabilities.

    Examples:
      >>> run = deepduel.Run("RUN")
      >>> run.classes["authenticity"]
      ('real', 'fake')
    """

    def __init__(self, path: str | os.PathLike):
        """Opens the folder of a run. Raises DataError where there is no run."""
        self.path = pathlib.Path(path)
        self.classes = {axis: tuple(task["classes"]) for axis, task in RunCard.load(self.path).tasks.items()}
        self._predictors: dict[tuple, Predictor] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        from deepduel.reports import run_summary, tables

        saved = self._saved("validation")
        tasks = {} if saved is None else saved.tasks
        split = saved.open_split() if saved else None
        mistakes = {axis: tables.mistakes(task, split) for axis, task in tasks.items()}
        return run_summary.html(str(self.path), self.classes, self.history, mistakes)

    @property
    def history(self) -> "Table":
        """A row per finished epoch: losses, metrics and times of training and validation."""
        from deepduel.reports.tables import Table

        try:
            with regular_files.open_text(self.path / "history.csv") as file:
                rows = list(csv.DictReader(file))
        except FileNotFoundError:
            return Table()
        return Table({name: _number(value) for name, value in row.items()} for row in rows)

    def evaluate(self, data_dir: str | os.PathLike | None = None, **options: Any) -> dict[str, Any]:
        """Evaluates the models on a labelled split, and writes a report, as `deepduel evaluate` does.

        Args:
          data_dir: folder of shards; None for those that the run was trained on.
          **options: the flags of `deepduel evaluate`, such as split="test".

        Returns:
          The content of metrics.json.

        Raises:
          TypeError: there is no such option.
          UsageError, DataError: an option or the data are bad.
        """
        return documents.read_file(self._evaluated(data_dir, options) / "metrics.json", dict)

    def predict(self, images: AnyImage | Iterable[AnyImage], **options: Any) -> "Table":
        """Predicts images.

        Args:
          images: paths of files or folders, glob patterns, URLs, arrays ([H, W, 3] or [N, H, W, 3], RGB, 0 to
            255), Pillow images, or a list of these.
          **options: the flags of `deepduel predict`, such as tasks=["category"]; explain=True has a notebook
            show heat maps beside the first pictures.

        Returns:
          A row per image, in the given order, with the columns of the command's JSON lines and the
          probabilities. An image that cannot be read has no row; with on_error="fail" it is an error.

        Raises:
          TypeError: there is no such option, or `images` has something else in it.
          UsageError, DataError: an option or an image is bad.

        Examples:
          >>> run.predict("photo.jpg")[0]["class"]
          'animals'
        """
        names = (*_OF_PREDICT, "workdir")
        own = {"workdir": self.path}
        values = keywords.parsed(predict_command, options | own, function="predict", names=names)
        cli.quiet_tensorflow()
        from deepduel.decoding import bad_records

        with keywords.errors(), bad_records.as_data_errors():
            return self._table(_as_list(images), values)

    def confusion(self, axis: str | None = None, *, split: str = "validation") -> "Table":
        """How often the images of each class are predicted as each class.

        Args:
          axis: the label axis; None where the run has a single one.
          split: the split, or the name of another evaluation. It is evaluated where it was not, or where the
            models have changed since.

        Returns:
          A row per class: its name under `axis`, and a column per class with the number of images.
        """
        from deepduel.reports import tables

        axis = self._axis(axis)
        return tables.confusion(self._evaluation(split).tasks[axis], axis)

    def mistakes(self, axis: str | None = None, *, split: str = "validation") -> "Table":
        """The images that are predicted wrongly, the most confident mistakes first.

        Args:
          axis: as of `confusion`.
          split: as of `confusion`.

        Returns:
          A row per image: its key, its label, the predicted label, and the probability of that one.
        """
        from deepduel.reports import tables

        saved = self._evaluation(split)
        return tables.mistakes(saved.tasks[self._axis(axis)], saved.open_split())

    def _axis(self, axis: str | None) -> str:
        if axis in self.classes or (axis is None and len(self.classes) == 1):
            return axis or next(iter(self.classes))
        raise UsageError(f"axis must be one of {', '.join(self.classes)}, got {axis!r}")

    def _data_dir(self) -> str:
        """The shards that the run was trained on."""
        named = None
        with contextlib.suppress(OSError, ValueError):
            text = regular_files.read_text(self.path / "train.flags", limit=1 << 20)
            named = re.search(r"^--data_dir=(.*)$", text, re.MULTILINE)
        places = [named[1]] if named else []
        places.append(str(self.path.parent / "shards"))  # of deepduel.fit, whose folder may have been moved
        for place in places:
            if storage.is_remote(place) or storage.open_folder(place).size(manifest.FILE_NAME) is not None:
                return place
        raise UsageError(
            f"the shards that {self.path} was trained on are not at {places[0]}; set data_dir to their folder"
        )

    def _evaluated(self, data_dir: str | os.PathLike | None, options: dict[str, Any]) -> pathlib.Path:
        """Evaluates, and returns the folder of the evaluation; see `evaluate`."""
        own = {"workdir": self.path, "data_dir": data_dir or self._data_dir()}
        names = (*_OF_EVALUATE, *own)
        values = keywords.parsed(evaluate_command, options | own, function="evaluate", names=names)
        with keywords.errors():
            return evaluate_command.evaluated(values)

    def _saved(self, name: str) -> "SavedEvaluation | None":
        """An evaluation of the best models as they are now; None if there is none that can be read."""
        from deepduel.evaluation import provenance, saved_evaluation

        try:
            saved = saved_evaluation.read(self.path, name)
        except DataError:
            return None
        for axis in self.classes:
            model = self.path / axis / "best.keras"
            if not model.is_file() or provenance.sha256(model) != saved.model_sha256.get(axis):
                return None
        return saved

    def _evaluation(self, name: str) -> "SavedEvaluation":
        from deepduel.evaluation import saved_evaluation

        saved = self._saved(name)
        if saved is None:
            folder = self._evaluated(None, {"split": name})  # of another name where images were appended
            saved = saved_evaluation.read(self.path, folder.name)
        return saved

    def _table(self, images: list[AnyImage], options: flags.FlagValues) -> "Table":
        from deepduel.prediction import submission
        from deepduel.reports import heat_maps
        from deepduel.reports.tables import PICTURES, Table

        predictor = self._predictor(options)
        columns = submission.Columns(
            predictor.classes, columns=options.columns, confidence=True, probabilities=True
        )
        rows: list[dict[str, Any]] = []
        pictures: list[np.ndarray] = []
        for prediction in _predictions(images, predictor, options):
            rows.append(dict(zip(columns.header, columns.row(prediction), strict=True)))
            if len(pictures) < PICTURES:
                heats = heat_maps.side_by_side(predictor, prediction) if options.explain else None
                pictures.append(prediction.pixels.copy() if heats is None else heats)
        return Table(rows, pictures)

    def _predictor(self, options: flags.FlagValues) -> "Predictor":
        """The models, which are loaded again when their files have changed."""
        from deepduel.prediction.predictor import Predictor

        predictor = Predictor(
            self.path, tasks=options.tasks, model=options.model, micro_batch=options.micro_batch
        )
        files = tuple((axis, path, path.stat().st_mtime_ns) for axis, path in predictor.files.items())
        key = (options.micro_batch, *files)
        if key not in self._predictors:
            self._predictors = {key: predictor}
        return self._predictors[key]


def _predictions(
    images: list[AnyImage], predictor: "Predictor", options: flags.FlagValues
) -> "Iterator[ImagePrediction]":
    """The predictions of readable images; unreadable ones are printed."""
    from deepduel.prediction import image_predictions, pictures

    calibrations = predict_command.load_calibrations(options, predictor)
    opened = pictures.open_sources(
        images,
        predictor.decoding,
        encoding=predict_command.file_encoding(options, predictor),
        split=options.split,
        threads=options.threads or None,
        on_error=options.on_error,
    )
    for source in opened:
        for name, reason in source.rejected:
            print(terminal.one_line(f"left out: {name}: {reason}"))
        for prediction in image_predictions.predict(
            source,
            predictor,
            batch_size=options.batch_size,
            on_error=options.on_error,
            calibrations=calibrations,
        ):
            if prediction.reason:
                print(terminal.one_line(f"left out: {prediction.image}: {prediction.reason}"))
            else:
                yield prediction


def _as_list(images: AnyImage | Iterable[AnyImage]) -> list[AnyImage]:
    """The images one by one. Raises TypeError for what is none."""
    alone = isinstance(images, AnyImage) and not (isinstance(images, np.ndarray) and images.ndim == 4)
    if not alone and (isinstance(images, bytes) or not isinstance(images, Iterable)):
        raise _no_image(images)
    listed: list[AnyImage] = [images] if alone else list(images)  # type: ignore[list-item,arg-type]
    for image in listed:
        if not isinstance(image, AnyImage):
            raise _no_image(image)
    return listed


def _no_image(value: object) -> TypeError:
    return TypeError(
        "images must be paths, URLs, arrays, Pillow images or a list of them, got "
        f"{type(value).__name__}: {reprlib.repr(value)}"
    )


def _number(text: str) -> float | int | None:
    """A cell of history.csv; None for an empty one."""
    if not text:
        return None
    return int(text) if text.isdecimal() else float(text)
