"""Predicts images with a run's models.

    python -m deepduel.predict --workdir=RUN photo.jpg
    python -m deepduel.predict --workdir=RUN --images=FOLDER --output=out.csv

Without --output it prints the most probable labels of each image. Images are
files, folders, patterns, or URLs such as https://… or s3://….

The file has one row per image, sorted by name. Its columns are image (the
path relative to the folder; for shards, the key), label for the axis
authenticity (0 real, 1 fake), class for the axis category (the name), and one
column for each other label axis, named after it.

--columns=id=image,p_category_cats chooses and names columns for another
format of submission. JSON lines also have the confidence.

Images may have any size and format. Those that cannot be read get no row; they
are reported, and listed with reasons in a second file beside the output, such
as out.rejected.csv.
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from absl import flags

from deepduel.prediction import flags as prediction_flags
from deepduel.reading import flags as read_flags
from tfrecords_tools import atomic, cli, progress
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.images import rgb, signatures
from tfrecords_tools.images.encoding_options import EncodingOptions
from tfrecords_tools.listing import candidates
from tfrecords_tools.progress import counted

if TYPE_CHECKING:  # these load TensorFlow, which --help does without
    from deepduel.evaluation.calibration import Calibration
    from deepduel.prediction import submission
    from deepduel.prediction.image_predictions import ImagePrediction
    from deepduel.prediction.predictor import Predictor
    from deepduel.prediction.terminal_table import TerminalTable

FLAGS = flags.FlagValues()
WORDS = "images"  # the flag of words without a name
USUAL = {
    "Run and images": ("workdir", "images", "split", "tasks", "model"),
    "Output": ("output", "format", "columns", "probabilities", "calibration", "explain"),
}
_PIXELS = ("alpha", "depth", "damaged")
FURTHER = {"Reading": ("batch_size", "micro_batch", "threads", "on_error", *_PIXELS)}
prediction_flags.define(FLAGS)
flags.DEFINE_multi_string(
    "images",
    None,
    "A folder of images, searched with its subfolders, a file, a glob pattern in quotes, a URL, or a "
    "folder of shards (with --split). May be repeated, and written without the flag's name.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output",
    None,
    "File to write the predictions to; by default they are printed.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "format",
    None,
    ["csv", "jsonl"],
    "csv, or jsonl (one JSON object per line); by default jsonl if --output ends in .jsonl, else csv.",
    flag_values=FLAGS,
)
flags.DEFINE_string("split", None, "Split to predict if --images is a folder of shards.", flag_values=FLAGS)
flags.DEFINE_bool(
    "probabilities", False, "Add a column p_AXIS_NAME with the probability of each label.", flag_values=FLAGS
)
flags.DEFINE_list(
    "columns",
    None,
    "Columns of the file, separated by commas: image, label, class, the name of any other label axis, "
    "confidence (confidence_AXIS for a run with several axes) and p_AXIS_NAME. NAME=COLUMN gives one another "
    "name, such as id=image. By default image and the labels.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "explain",
    False,
    "Write a picture of each image with a heat map (Grad-CAM) of the regions that led to the predicted "
    "label: beside the image, or with --output into the folder OUTPUT.explained.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "calibration",
    None,
    "Split whose evaluation by deepduel.evaluate calibrated these models: its temperature "
    "is applied to the probabilities and its threshold to the decisions. By default the label with the "
    "highest probability is predicted.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "alpha",
    None,
    "Background of transparent images: a colour, such as white, or drop to ignore transparency; by default "
    "as the images of the run were converted.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "depth",
    None,
    "How to read grayscale images of more than 8 bits: high_byte (the upper 8 of 16 bits), or LOW:HIGH, a "
    "range that is scaled to 0..255; by default as the images of the run were converted.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "damaged",
    None,
    rgb.DAMAGED,
    "What to do with JPEGs without an end marker: reject or accept; by default as the images of the run were "
    "converted.",
    flag_values=FLAGS,
)
read_flags.define(FLAGS, ("threads", "on_error"), on_error="skip")


def main(options: flags.FlagValues) -> None:
    needed = {
        "workdir": "the folder of the run",
        "images": "a folder, file or pattern of images",
    }
    for name, meaning in needed.items():
        if not options[name].value:
            raise UsageError(f"--{name} is missing; set it to {meaning}")
    if options.output is None:
        for name in ("format", "probabilities", "columns"):
            if options[name].value:
                raise UsageError(f"--{name} needs --output=FILE; without it the predictions are printed")
        if options.explain and not all(pathlib.Path(image).is_file() for image in options.images):
            raise UsageError(
                "--explain needs --output=FILE, unless all images are files: the heat maps of others are "
                "written to a folder beside it"
            )
    elif options.columns and options.probabilities:
        raise UsageError("--columns names all columns; leave --probabilities out")
    elif options.explain and atomic.is_special(options.output):
        raise UsageError(
            f"--explain writes heat maps into a folder beside --output, but {options.output} is a device or "
            "a pipe; set --output to a file"
        )
    if options.output is not None:
        signatures.require_no_image(options.output, "output")
    cli.quiet_tensorflow()
    from deepduel.decoding import bad_records

    with bad_records.as_data_errors():
        _predict(options)


def _predict(options: flags.FlagValues) -> None:
    from deepduel.prediction import image_predictions, sources, submission
    from deepduel.prediction.predictor import Predictor
    from deepduel.prediction.terminal_table import TerminalTable

    predictor = Predictor(
        options.workdir, tasks=options.tasks, model=options.model, micro_batch=options.micro_batch
    )
    calibrations = load_calibrations(options, predictor)
    source = sources.open_source(
        options.images,
        predictor.decoding,
        encoding=file_encoding(options, predictor),
        split=options.split,
        threads=options.threads or None,
        on_error=options.on_error,
    )
    if line := candidates.system_line(source.system):
        print(f"deepduel.predict: {line}", file=sys.stderr)
    predictions = image_predictions.predict(
        source,
        predictor,
        batch_size=options.batch_size,
        on_error=options.on_error,
        calibrations=calibrations,
    )
    if options.explain:
        predictions = _explained(predictions, predictor, options.output)
    if options.output is None:
        table = TerminalTable(predictor.classes)
        _write(source.rejected, predictions, table, table.add)
        _require_rows(table, options)
        return
    form = options.format or ("jsonl" if options.output.endswith(".jsonl") else "csv")
    columns = submission.Columns(
        predictor.classes,
        columns=options.columns,
        confidence=form == "jsonl",
        probabilities=options.probabilities,
    )
    started = time.perf_counter()
    with submission.Writer(options.output, columns.header, form=form) as writer:
        _write(source.rejected, predictions, writer, lambda prediction: writer.write(columns.row(prediction)))
        _require_rows(writer, options)
        writer.publish()
    rate = progress.per_second(writer.rows / (time.perf_counter() - started))
    images = counted(writer.rows, "image")
    print(f"{options.output}: {images}, columns {','.join(columns.header)}, {rate} images/s")
    if writer.rejected:
        print(
            f"deepduel.predict: no row for {counted(writer.rejected, 'file')} that could not be read; "
            f"{f'listed in {writer.rejected_path}' if writer.rejected_path else 'see above'}",
            file=sys.stderr,
        )


def _explained(
    predictions: "Iterable[ImagePrediction]", predictor: "Predictor", output: str | None
) -> "Iterator[ImagePrediction]":
    """The same predictions; a heat map of each readable image is written."""
    from deepduel.reports.heat_maps import HeatMaps

    folder = None if output is None else pathlib.Path(f"{output}.explained")
    heat_maps = HeatMaps(predictor, folder)
    for prediction in predictions:
        if not prediction.reason:
            heat_maps.add(prediction)
        yield prediction
    print(f"{counted(heat_maps.count, 'heat map')} in {folder or 'the folders of the images'}")


def load_calibrations(options: flags.FlagValues, predictor: "Predictor") -> "dict[str, Calibration]":
    """{axis: calibration} that --calibration names; none without it."""
    if options.calibration is None:
        return {}
    from deepduel.evaluation import calibration, provenance  # import scikit-learn: a second

    hashes = {axis: provenance.sha256(path) for axis, path in predictor.files.items()}
    return calibration.load(options.workdir, options.calibration, hashes)


def file_encoding(options: flags.FlagValues, predictor: "Predictor") -> EncodingOptions:
    """How image files become pixels: as in the run's conversion, except for the flags that are set.

    Raises:
      UsageError: such a flag is set for shards, whose images are pixels already.
    """
    of_run = predictor.encoding
    changes: dict[str, Any] = {
        name: options[name].value for name in _PIXELS if options[name].value is not None
    }
    if changes and options.split is not None:
        raise UsageError(
            f"--{next(iter(changes))} is for image files, and those in shards were converted already; "
            "leave it out"
        )
    return dataclasses.replace(of_run, pixels=dataclasses.replace(of_run.pixels, **changes))


def _write(
    rejected: list[tuple[str, str]],
    predictions: "Iterable[ImagePrediction]",
    writer: "submission.Writer | TerminalTable",
    add: "Callable[[ImagePrediction], None]",
) -> None:
    """Has `add` write a row for every image, and the writer list the unreadable ones."""
    for name, reason in rejected:
        writer.reject(name, reason)
    for prediction in predictions:
        if prediction.reason:
            writer.reject(prediction.image, prediction.reason)
        else:
            add(prediction)


def _require_rows(writer: "submission.Writer | TerminalTable", options: flags.FlagValues) -> None:
    if not writer.rows:
        raise DataError(
            f"--images={','.join(options.images)}: no readable image in "
            f"{counted(writer.rejected, 'file')} (the first: {writer.first_reason})"
        )


def entry() -> int:
    return cli.run(
        main,
        FLAGS,
        name="deepduel.predict",
        usual=USUAL,
        further=FURTHER,
        words=WORDS,
        usage="--workdir=RUN IMAGE … [--output=FILE]",
    )


if __name__ == "__main__":
    sys.exit(entry())
