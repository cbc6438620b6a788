"""Predicts images with a run's models.

    python -m deepduel.predict --workdir=RUN photo.jpg
    python -m deepduel.predict --workdir=RUN --images=FOLDER --output=out.csv

Without --output it prints the most probable labels of each image. Images are
files, folders, patterns, or URLs such as https://… or s3://….

The file has one row per image, sorted by name. Its columns are image (the
path relative to the folder; for shards, the key), label for the axis
authenticity (0 real, 1 fake), class for the axis category (the name), and one
column for each other label axis, named after it.

Images may have any size and format. Those that cannot be read get no row; they
are reported, and listed with reasons in a second file beside the output, such
as out.rejected.csv.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from deepduel.prediction import flags as prediction_flags
from deepduel.reading import flags as read_flags
from tfrecords_tools import cli, progress
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.images import signatures
from tfrecords_tools.listing import candidates

if TYPE_CHECKING:  # these load TensorFlow, which --help does without
    from deepduel.evaluation.calibration import Calibration
    from deepduel.prediction import sources, submission
    from deepduel.prediction.predictor import Predictor
    from deepduel.prediction.terminal_table import TerminalTable

FLAGS = flags.FlagValues()
WORDS = "images"  # the flag of words without a name
USUAL = {
    "Run and images": ("workdir", "images", "split", "tasks", "model"),
    "Output": ("output", "format", "probabilities", "calibration"),
}
FURTHER = {"Reading": ("batch_size", "micro_batch", "threads", "on_error")}
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
flags.DEFINE_string(
    "calibration",
    None,
    "Split whose evaluation by deepduel.evaluate calibrated these models: its temperature "
    "is applied to the probabilities and its threshold to the decisions. By default the label with the "
    "highest probability is predicted.",
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
        for name in ("format", "probabilities"):
            if options[name].value:
                raise UsageError(f"--{name} needs --output=FILE; without it the predictions are printed")
    else:
        signatures.require_no_image(options.output, "output")
    cli.quiet_tensorflow()
    import tensorflow as tf

    from deepduel.decoding import bad_records

    try:
        _predict(options)
    except tf.errors.OpError as error:
        raise bad_records.data_error(error) or error from error


def _predict(options: flags.FlagValues) -> None:
    from deepduel.prediction import sources, submission
    from deepduel.prediction.predictor import Predictor
    from deepduel.prediction.terminal_table import TerminalTable

    predictor = Predictor(
        options.workdir, tasks=options.tasks, model=options.model, micro_batch=options.micro_batch
    )
    calibrations = {}
    if options.calibration is not None:
        from deepduel.evaluation import calibration, provenance  # import scikit-learn: a second

        hashes = {axis: provenance.sha256(path) for axis, path in predictor.files.items()}
        calibrations = calibration.load(options.workdir, options.calibration, hashes)
    decoding = predictor.decoding
    source = sources.open_source(
        options.images,
        decoding,
        split=options.split,
        threads=options.threads or None,
        on_error=options.on_error,
    )
    if line := candidates.system_line(source.system):
        print(f"deepduel.predict: {line}", file=sys.stderr)
    if options.output is None:
        table = TerminalTable(predictor.classes)
        _write(source, predictor, calibrations, table, table.add, options)
        _require_rows(table, options)
        return
    columns = submission.Columns(predictor.classes, probabilities=options.probabilities)
    form = options.format or ("jsonl" if options.output.endswith(".jsonl") else "csv")
    with submission.Writer(options.output, columns.header, form=form) as writer:
        add = lambda *predicted: writer.write(columns.row(*predicted))
        seconds = _write(source, predictor, calibrations, writer, add, options)
        _require_rows(writer, options)
        writer.publish()
    rate = f"{progress.per_second(writer.rows / seconds)} images/s" if seconds else ""
    print(f"{options.output}: {writer.rows:,} images, columns {','.join(columns.header)}, {rate}")
    if writer.rejected:
        print(
            f"deepduel.predict: {writer.rejected:,} files could not be read and have no row; "
            f"{f'they are listed in {writer.rejected_path}' if writer.rejected_path else 'see above'}",
            file=sys.stderr,
        )


def _require_rows(writer: "submission.Writer | TerminalTable", options: flags.FlagValues) -> None:
    if not writer.rows:
        raise DataError(
            f"--images={','.join(options.images)}: none of {writer.rejected:,} files is a "
            f"readable image (the first: {writer.first_reason})"
        )


def _write(
    source: "sources.Source",
    predictor: "Predictor",
    calibrations: "dict[str, Calibration]",
    writer: "submission.Writer | TerminalTable",
    add: Callable[[str, dict, dict], None],
    options: flags.FlagValues,
) -> float:
    """Predicts every image of the source and has `add` write its row. Returns the time it took in seconds."""
    from deepduel.prediction import sources

    for name, reason in source.rejected:
        writer.reject(name, reason)
    started = time.perf_counter()
    done = 0
    with progress.Progress("predicting", total=len(source)) as bar:
        for batch in sources.batches(source, options.batch_size, predictor.decoding):
            probabilities = predictor(batch["images"])
            decisions = {axis: part.argmax(1) for axis, part in probabilities.items()}
            for axis, fitted in calibrations.items():
                probabilities[axis] = fitted.probabilities(probabilities[axis])
                decisions[axis] = fitted.decide(probabilities[axis])
            rows = zip(batch["numbers"].numpy().tolist(), batch["reasons"].numpy(), strict=True)
            for index, (number, reason) in enumerate(rows):
                if number < 0:
                    continue
                done += 1
                if reason and options.on_error == "fail":
                    raise DataError(
                        f"{source.name(number)}: {reason.decode()}; set --on_error=skip to leave it out"
                    )
                if reason:
                    writer.reject(source.name(number), reason.decode())
                    continue
                add(
                    source.name(number),
                    {axis: part[index] for axis, part in probabilities.items()},
                    {axis: part[index] for axis, part in decisions.items()},
                )
            bar.update(done, f"{writer.rejected} unreadable" if writer.rejected else "")
    return time.perf_counter() - started


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
