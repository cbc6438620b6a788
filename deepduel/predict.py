"""Predicts images with a run's models: a row per image, sorted by name, in a CSV or JSON lines file.

    python -m deepduel.predict --workdir=RUN --images=FOLDER --output=submission.csv

Columns: image, then `label` (authenticity: 0 real, 1 fake) and `class` (category's name) as in
ArtiFact's submissions; any other label axis has a column named after it with the label's name.
`image` is the path relative to the folder (files and patterns: the path as given; shards: the key).

Images may have any size and format. What cannot be read is no row, but is counted, said, and
listed with the reason in a second file beside the output: submission.rejected.csv (image,reason).
"""

import sys
import time

from absl import flags

from tfrecords_tools import cli, progress

FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS, required=True)
flags.DEFINE_multi_string(
    "images", None, "A folder of images (with all below it), a file, a glob pattern in quotes, or a "
    "folder of shards (with --split). May be repeated.", flag_values=FLAGS, required=True)  # fmt: skip
flags.DEFINE_string("output", None, "File to write.", flag_values=FLAGS, required=True)
flags.DEFINE_enum(
    "format", None, ["csv", "jsonl"], "csv, or jsonl (one JSON object a line); default: jsonl for an "
    "--output that ends in .jsonl, else csv.", flag_values=FLAGS)  # fmt: skip
flags.DEFINE_string(
    "split", None, "Split to predict, where --images is a folder of shards.", flag_values=FLAGS
)
flags.DEFINE_list("tasks", None, "Tasks to predict; default: all of the run.", flag_values=FLAGS)
flags.DEFINE_string("model", "best", "Which model of each task: best, or epoch-NN.", flag_values=FLAGS)
flags.DEFINE_bool(
    "probabilities", False, "Add a column p_AXIS_NAME with the probability of each label.", flag_values=FLAGS
)
flags.DEFINE_integer("batch_size", 256, "Images read at a time.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "micro_batch",
    32,
    "Images per pass through the models: decides the memory.",
    lower_bound=1,
    flag_values=FLAGS,
)


def main(options: flags.FlagValues) -> None:
    cli.quiet_tensorflow()
    import tensorflow as tf

    from deepduel import run

    try:
        _predict(options)
    except tf.errors.OpError as error:
        raise run.data_error(error) or error from error


def _predict(options: flags.FlagValues) -> None:
    from deepduel import sources, submission
    from deepduel.decode import Decoding
    from deepduel.predictor import Predictor

    predictor = Predictor(
        options.workdir, tasks=options.tasks, model=options.model, micro_batch=options.micro_batch
    )
    columns = submission.Columns(predictor.classes, probabilities=options.probabilities)
    form = options.format or ("jsonl" if options.output.endswith(".jsonl") else "csv")
    card = predictor.card
    decoding = Decoding(card.size, card.fit, card.fast_decode)
    source = sources.open_source(options.images, decoding, split=options.split)
    with submission.Writer(options.output, columns.header, form=form) as writer:
        seconds = _write(source, predictor, columns, writer, options.batch_size, decoding)
        if not writer.rows:
            raise cli.DataError(
                f"--images={','.join(options.images)}: none of {writer.rejected} files is a readable image "
                f"(the first: {writer.first_reason})"
            )
        writer.publish()
    rate = f"{writer.rows / seconds:,.0f} images/s" if seconds else ""
    print(f"{options.output}: {writer.rows:,} images, columns {','.join(columns.header)}, {rate}")
    if writer.rejected:
        print(
            f"deepduel.predict: {writer.rejected:,} files could not be read and have no row; "
            f"they are listed in {writer.rejected_path}",
            file=sys.stderr,
        )


def _write(source, predictor, columns, writer, batch_size: int, decoding) -> float:
    """Predicts the whole source into the writer. Returns the seconds it took."""
    from deepduel import sources

    for name, reason in source.rejected:
        writer.reject(name, reason)
    started = time.perf_counter()
    done = 0
    with progress.Progress("predicting", total=len(source)) as bar:
        for batch in sources.batches(source, batch_size, decoding):
            probabilities = predictor(batch["images"])
            decisions = {axis: part.argmax(1) for axis, part in probabilities.items()}
            rows = zip(batch["numbers"].numpy().tolist(), batch["reasons"].numpy(), strict=True)
            for place, (number, reason) in enumerate(rows):
                if number < 0:
                    continue
                done += 1
                if reason:
                    writer.reject(source.name(number), reason.decode())
                    continue
                writer.write(
                    columns.row(
                        source.name(number),
                        {axis: part[place] for axis, part in probabilities.items()},
                        {axis: part[place] for axis, part in decisions.items()},
                    )
                )
            bar.update(done, f"{writer.rejected} unreadable" if writer.rejected else "")
    return time.perf_counter() - started


def entry() -> int:
    return cli.run(main, FLAGS, name="deepduel.predict")


if __name__ == "__main__":
    sys.exit(entry())
