"""Evaluates a run's models on a labelled split.

    python -m deepduel.evaluate --workdir=RUN --data_dir=SHARDS

writes report.html, metrics.json and predictions.csv (with --format=pdf also
report.pdf, with --label_check also doubted_labels.csv) into
RUN/evaluation/SPLIT/, or RUN/evaluation/DATA-SPLIT/ for a data set that the
run was not trained on; --name gives the folder another name. Every record is
evaluated exactly once, whatever the batch size, and the metrics are
scikit-learn's.
"""

import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from deepduel.prediction import flags as prediction_flags
from deepduel.reading import flags as read_flags
from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest
from tfrecords_tools.progress import counted

if TYPE_CHECKING:
    import numpy as np

    from deepduel.evaluation.duplicates import Duplicates
    from deepduel.evaluation.predictions import Predictions
    from deepduel.prediction.predictor import Predictor

FLAGS = flags.FlagValues()
USUAL = {
    "Run and data": ("workdir", "data_dir", "split", "tasks", "model", "name", "format"),
    "Figures": (
        "bootstrap",
        "label_check",
        "robustness",
        "robustness_images",
        "duplicates",
        "metadata",
        "group_by",
    ),
}
FURTHER = {"Reading": ("batch_size", "micro_batch", "reader", "threads", "on_error", "remote_cache")}
prediction_flags.define(FLAGS)
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS)
flags.DEFINE_string("split", "validation", "Split to evaluate on.", flag_values=FLAGS)
flags.DEFINE_string(
    "name",
    None,
    "Name of this evaluation, its folder below RUN/evaluation; by default the split's, after that of the "
    "data set if the run was not trained on it.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "format",
    "html",
    ["html", "pdf"],
    "Format of the report: html, or pdf, which is written beside it and needs pip install 'deepduel[pdf]'.",
    flag_values=FLAGS,
)
read_flags.define(FLAGS, ("reader", "threads", "on_error", "remote_cache"))
flags.DEFINE_integer(
    "bootstrap",
    1000,
    "Bootstrap samples for each 95 % confidence interval; from 10,000 images on, fewer are drawn. 0 computes "
    "no intervals.",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "robustness",
    False,
    "Also evaluate on recompressed, blurred, downscaled and cropped images, "
    "in 22 passes over --robustness_images.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "robustness_images",
    2000,
    "Number of images for --robustness, spread evenly over the split; 0 for all.",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "label_check",
    False,
    "Also list the images whose label is probably wrong, in the report and in doubted_labels.csv; needs "
    "pip install 'deepduel[labels]'.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "duplicates",
    "auto",
    ["auto", "near", "exact", "none"],
    "Duplicates to search for within the split and across splits: near (which decodes every image of all "
    "splits), exact, or none; auto is near for up to 50,000 images and exact for more.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "metadata",
    None,
    "CSV file with a column of image paths (image_path, path, file, image, filename or "
    "key) and columns for --group_by.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "group_by",
    None,
    "Columns of --metadata, such as generator; all figures are also reported for each of their values.",
    flag_values=FLAGS,
)


def main(options: flags.FlagValues) -> None:
    """Evaluates, prints the main metrics, and says where the report is."""
    evaluated(options)


def evaluated(options: flags.FlagValues) -> pathlib.Path:
    """The folder of the evaluation, which is done and printed."""
    for name in ("workdir", "data_dir"):
        if not options[name].value:
            raise UsageError(f"--{name} is missing; it must name the {options[name].help[:-1].lower()}")
    _require_columns(options)
    if options["robustness_images"].present and not options.robustness:
        raise UsageError(
            "--robustness_images has no effect without --robustness; add it, or leave this one out"
        )
    if options.format == "pdf":
        from deepduel.reports import pdf

        pdf.require()
    if options.label_check:
        from deepduel.evaluation import label_check

        label_check.require()
    cli.quiet_tensorflow()
    from deepduel.decoding import bad_records

    with bad_records.as_data_errors():
        return _evaluate(options)


def _require_columns(options: flags.FlagValues) -> None:
    if bool(options.metadata) != bool(options.group_by):
        raise UsageError("--metadata=FILE.csv and --group_by=COLUMN,… must be set together")
    if len(set(options.group_by or ())) < len(options.group_by or ()):
        raise UsageError(f"--group_by={','.join(options.group_by)}: must name each column once")


def _evaluate(options: flags.FlagValues) -> pathlib.Path:
    from deepduel.evaluation import duplicates as duplicate_search
    from deepduel.evaluation import (
        group_columns,
        metrics_document,
        output_folder,
        predictions,
        provenance,
        robustness,
    )
    from deepduel.prediction.predictor import Predictor
    from deepduel.reports import model_card, pdf

    predictor = Predictor(
        options.workdir, tasks=options.tasks, model=options.model, micro_batch=options.micro_batch
    )
    splits = manifest.load(options.data_dir, shards=False).splits
    name = predictor.card.evaluated_split(options.split, splits)
    split, labels = predictions.open_split(options.data_dir, name, predictor)
    folder = output_folder.choose(
        options.workdir, options.name, options.split, split.manifest, predictor.card
    )
    for axis, numbers in labels.items():
        if (numbers < 0).all():
            print(f"{axis}: split {options.split!r} has no labels for this task; it is left out")
    card = predictor.card
    reading = read_flags.build(
        options, batch_size=options.batch_size, size=card.size, fit=card.fit, fast_decode=card.fast_decode
    )
    columns = group_columns.read(options.metadata, options.group_by, split) if options.group_by else {}
    predicted = predictions.predict(split, labels, predictor, reading)
    about = provenance.about(predictor, predicted, workdir=options.workdir, flags=_changed_flags(options))
    duplicates = duplicate_search.search(split, options.duplicates)
    document = metrics_document.document(
        predicted, about, columns=columns, duplicates=duplicates, replicates=options.bootstrap
    )
    if options.robustness:
        damaged = robustness.curves(
            split, predicted.labels, predictor, images=options.robustness_images,
            batch_size=options.batch_size, on_error=options.on_error,
        )  # fmt: skip
        for axis, curves in damaged.items():
            document["tasks"][axis]["robustness"] = curves
    doubts = _check_labels(folder, document, predicted) if options.label_check else {}
    report = _report(options.workdir, document, predicted, predictor, duplicates, doubts)
    as_pdf = folder / "report.pdf"
    pdf.remove(as_pdf, replaced=options.format == "pdf")
    metrics_document.save(folder, document, predicted, report)
    _print(document, options.metadata)
    model_card.write(options.workdir)
    if options.format == "pdf":
        pdf.save(as_pdf, report)
    print(f"report: {folder / f'report.{options.format}'}")
    return folder


def _check_labels(folder: pathlib.Path, document: dict, predicted: "Predictions") -> "dict[str, np.ndarray]":
    """The records of doubted labels, by axis; they are written, counted in the document, and printed."""
    from deepduel.evaluation import label_check

    doubts = {axis: label_check.doubted(predicted, axis) for axis in document["tasks"]}
    label_check.write(folder, predicted, doubts)
    for axis, numbers in doubts.items():
        document["tasks"][axis]["label_check"] = {"doubted": len(numbers)}
        print(
            f"{axis}: {counted(len(numbers), 'label')} probably wrong; see {folder / label_check.FILE_NAME}"
        )
    return doubts


def _report(
    workdir: str,
    document: dict,
    predicted: "Predictions",
    predictor: "Predictor",
    duplicates: "Duplicates",
    doubts: "dict[str, np.ndarray]",
) -> str:
    """The report as a page; `doubts` are the records of doubted labels, by axis."""
    from deepduel.reports import gallery, report_page, training_curves

    tasks = document["tasks"]
    return report_page.render(
        document,
        {axis: gallery.galleries(predicted, predictor, axis, doubts.get(axis)) for axis in tasks},
        gallery.pairs(duplicates.pairs),
        examples={
            axis: gallery.examples(predicted, predictor, axis, report_page.confused_pairs(task))
            for axis, task in tasks.items()
        },
        training=training_curves.read(workdir, tasks),
    )


def _print(document: dict, metadata: str | None) -> None:
    """Prints the main metrics, what they leave out, and a warning about shortcuts."""
    print(table(document))
    if document["left_out"]:
        images = counted(document["records"], "image")
        print(f"left out, as they cannot be decoded: {document['left_out']:,} of {images}")
    for name, count in document["ungrouped"].items():
        if count:
            print(f"{metadata} has no {name} for {counted(count, 'image')}: left out of its groups")
    for axis, task in document["tasks"].items():
        if task["shortcuts"].get("alarm"):
            best = max(task["shortcuts"]["balanced_accuracy"].values())
            print(
                f"warning: a baseline that sees only file size, image size, JPEG tables and mean colour "
                f"reaches {best:.1%} balanced accuracy on {axis}; see the report"
            )


def table(document: dict) -> str:
    """The main metrics of each task as a table for the terminal."""
    rows = [("task", "images", "accuracy", "balanced", "AUC", "log loss")]
    for axis, task in document["tasks"].items():
        overall = task["overall"]
        auc = "-" if overall["auc"] is None else f"{overall['auc']:.4f}"
        rows.append((
            axis, f"{task['images']:,}", f"{overall['accuracy']:.2%}", f"{overall['balanced_accuracy']:.2%}",
            auc, f"{overall['log_loss']:.4f}",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join(map("  ".join, lines))


def _changed_flags(options: flags.FlagValues) -> list[str]:
    """The flags that differ from their defaults, as written on the command line."""
    return [
        flag.serialize()
        for flag in (options[name] for name in sorted(options))
        if not flag.using_default_value
    ]


def entry() -> int:
    return cli.run(
        main, FLAGS, name="deepduel.evaluate", usual=USUAL, further=FURTHER,
        usage="--workdir=RUN --data_dir=SHARDS",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(entry())
