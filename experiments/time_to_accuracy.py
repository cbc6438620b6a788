"""Seconds until the same validation accuracy: the usual Keras route, ours, and ours on kept features.

    python -m experiments.time_to_accuracy --data_dir=SHARDS --output=RESULT.json --weights=FILE
    python -m experiments.time_to_accuracy … --ours=--precision=auto --ours=--batch_size=32

    plain      flow_from_directory, ImageDataGenerator with the original's augmentation, fit; on files
               with the shards' own bytes, laid out beforehand
    ours       python -m deepduel.train
    features   the same with --cache=features --views=K; making the features counts

All have the same frozen backbone with the same weights, the same head, augmentation and optimizer and, unless
--ours says otherwise, the same batch size and precision. They run one after another, each in a process of
its own, until --target is reached, or for --epochs. Seconds are told from the start of the process, and
without what comes before the first epoch (imports, building the networks).
"""

import csv
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError

FLAGS = flags.FlagValues()
CONTENDERS = ("plain", "ours", "features")
flags.DEFINE_string("data_dir", None, "Folder of shards, JPEG or PNG.", flag_values=FLAGS, required=True)
flags.DEFINE_string("output", None, "JSON file for the result.", flag_values=FLAGS, required=True)
flags.DEFINE_list(
    "contenders", list(CONTENDERS), "What to measure: plain, ours, features.", flag_values=FLAGS
)
flags.DEFINE_string("task", "authenticity", "Label axis to learn.", flag_values=FLAGS)
flags.DEFINE_string("backbone", "xception", "Of keras.applications; it stays frozen.", flag_values=FLAGS)
flags.DEFINE_string(
    "weights", "imagenet", "imagenet, a file, or none: speed only, nothing is learnt on random features.",
    flag_values=FLAGS)  # fmt: skip
flags.DEFINE_string("head", "avg,dropout:0.5,dense:512", "As of deepduel.train.", flag_values=FLAGS)
flags.DEFINE_integer("image_size", 224, "Pixels.", lower_bound=8, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 512, "Images per update.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("epochs", 5, "At most.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("views", 3, "Of each training image, for features.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float(
    "target", 0, "Validation accuracy, 0 to 1, at which a contender stops; 0: the best that all reach in "
    "--epochs.", lower_bound=0, upper_bound=1, flag_values=FLAGS)  # fmt: skip
flags.DEFINE_multi_string(
    "ours", [], "A flag of deepduel.train for ours and features, such as --precision=auto; may be repeated.",
    flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_string("plain_job", "", "Internal: the plain contender, as JSON.", flag_values=FLAGS)


def main(options: flags.FlagValues) -> None:
    if options.plain_job:
        _plain(**json.loads(options.plain_job))
        return
    output = pathlib.Path(options.output)
    if not output.absolute().parent.is_dir():
        raise UsageError(f"--output={output}: its folder does not exist")
    for name in options.contenders:
        if name not in CONTENDERS:
            raise UsageError(f"--contenders takes {', '.join(CONTENDERS)}, not {name!r}")
    curves = {}
    with tempfile.TemporaryDirectory(prefix="time-to-accuracy-") as scratch:
        if "plain" in options.contenders:
            _lay_out(options.data_dir, options.task, pathlib.Path(scratch, "images"))
        for name in options.contenders:
            print(f"{name}: running", flush=True)
            curves[name] = _run(name, options, pathlib.Path(scratch))
    document = summary(curves, options.target)
    document["settings"] = {flag: options[flag].value for flag in options if flag != "plain_job"}
    with published(output) as file:
        file.write(json.dumps(document, indent=1) + "\n")
    print(table(document))


def summary(curves: dict[str, list[dict[str, float]]], target: float) -> dict:
    """When each contender reached the target first.

    Args:
      curves: per contender and epoch "accuracy" 0..1, "seconds" from the process' start, and "trained": from
        the first epoch's start.
      target: accuracy; 0: the best that all reach.
    """
    target = target or min(max(point["accuracy"] for point in curve) for curve in curves.values())
    reached = {}
    for name, curve in curves.items():
        epochs = [number for number, point in enumerate(curve, 1) if point["accuracy"] >= target]
        reached[name] = {"epoch": epochs[0], **curve[epochs[0] - 1]} if epochs else None
    return {"target": target, "reached": reached, "curves": curves}


def table(document: dict) -> str:
    """The summary for the console; ratios are to plain."""
    lines = [f"validation accuracy {document['target']:.2%} reached"]
    lines += [f"{'':10} {'epoch':>5} {'seconds':>9} {'':>7} {'without start-up':>17} {'':>7}"]
    plain = document["reached"].get("plain")
    for name, point in document["reached"].items():
        if point is None:
            best = max(each["accuracy"] for each in document["curves"][name])
            lines.append(f"{name:10} not in {len(document['curves'][name])} epochs; the best was {best:.2%}")
            continue
        ratios = {key: f"{plain[key] / point[key]:6.1f}x" if plain else "" for key in ("seconds", "trained")}
        lines.append(
            f"{name:10} {point['epoch']:>5} {point['seconds']:>9.1f} {ratios['seconds']:>7} "
            f"{point['trained']:>17.1f} {ratios['trained']:>7}"
        )
    return "\n".join(lines)


def _run(name: str, options: flags.FlagValues, scratch: pathlib.Path) -> list[dict[str, float]]:
    """One contender in a process of its own, which keeps a history.csv; it is ended at the target."""
    workdir = scratch / name
    command = _plain_command(options, scratch, workdir)
    if name != "plain":
        command = _our_command(options, workdir, features=name == "features")
    curve: list[dict[str, float]] = []
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            ended = False
            while not ended and not any(0 < options.target <= point["accuracy"] for point in curve):
                time.sleep(0.02)
                ended = process.poll() is not None  # before the history is looked at: nothing is missed
                now = time.perf_counter() - started
                curve += [point | {"seconds": now} for point in _history(workdir, options.task)[len(curve) :]]
        finally:
            process.kill()
            process.wait()
        if ended and process.returncode:
            said.seek(0)
            raise DataError(f"{name} failed: {said.read().decode('utf-8', 'replace')[-2000:].strip()}")
    return curve


def _history(workdir: pathlib.Path, task: str) -> list[dict[str, float]]:
    path = workdir / "history.csv"
    if not path.exists():
        return []
    points, trained = [], 0.0
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            trained += float(row["seconds"])
            points.append({"accuracy": float(row[f"val_{task}_accuracy"]), "trained": trained})
    return points


def _our_command(options: flags.FlagValues, workdir: pathlib.Path, *, features: bool) -> list[str]:
    same = ("data_dir", "backbone", "weights", "head", "image_size", "batch_size", "epochs", "seed")
    words = [f"--{name}={options[name].value}" for name in same]
    words += [f"--workdir={workdir}", f"--tasks={options.task}", "--augmentation=original", *options.ours]
    words += ["--cache=features", f"--views={options.views}"] if features else []
    return [sys.executable, "-m", "deepduel.train", *words]


def _plain_command(options: flags.FlagValues, scratch: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    same = ("task", "backbone", "weights", "head", "image_size", "batch_size", "epochs", "seed")
    job = {name: options[name].value for name in same}
    job |= {"images": str(scratch / "images"), "workdir": str(workdir)}
    words = [f"--plain_job={json.dumps(job)}", "--data_dir=", "--output="]
    return [sys.executable, "-m", "experiments.time_to_accuracy", *words]


def _lay_out(data_dir: str, task: str, images: pathlib.Path) -> None:
    """images/{split}/{label}/{record}.jpg, with the bytes of the shards."""
    from deepduel.decoding.split import Split
    from tfrecords_tools import records

    for name in ("train", "validation"):
        split = Split(data_dir, name)
        if task not in split.labels:
            raise UsageError(f"--task: {data_dir} has no label axis {task!r}")
        for number, label in enumerate(split.labels[task].tolist()):
            encoding = records.ENCODINGS[split.encoding[number]]
            if encoding == "raw":
                raise DataError(f"{data_dir}: holds raw pixels, of which there are no files; give JPEGs")
            if label < 0:
                raise DataError(f"{data_dir}: image {number} of {name} has no label {task!r}")
            folder = images / name / split.manifest.axes[task][label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:08d}.{encoding}").write_bytes(split.image(number))


def _plain(task, images, workdir, backbone, weights, head, image_size, batch_size, epochs, seed) -> None:
    """What the original's notebooks do."""
    cli.quiet_tensorflow()
    import keras
    import tensorflow as tf

    from deepduel.networks import task_model
    from experiments.benchmark_keras import ORIGINAL

    folder = pathlib.Path(workdir)
    folder.mkdir()
    classes = sorted(path.name for path in pathlib.Path(images, "train").iterdir())
    flow = {"target_size": (image_size, image_size), "batch_size": batch_size, "class_mode": "sparse",
            "classes": classes, "seed": seed}  # fmt: skip
    generator = tf.keras.preprocessing.image.ImageDataGenerator
    train = generator(**ORIGINAL).flow_from_directory(f"{images}/train", **flow)
    validation = generator().flow_from_directory(f"{images}/validation", shuffle=False, **flow)
    architecture = task_model.Architecture(backbone, head, image_size, weights)
    parts = task_model.build(task, architecture, tuple(classes), seed=seed)
    pixels = parts.extractor.input
    model = keras.Model(pixels, parts.head(parts.extractor(pixels)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])

    rows = []

    class History(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            seconds = time.perf_counter() - self.started
            rows.append({f"val_{task}_accuracy": logs["val_accuracy"], "seconds": seconds})
            with published(folder / "history.csv") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)

    steps = math.ceil(train.samples / batch_size)
    model.fit(
        train, steps_per_epoch=steps, epochs=epochs, validation_data=validation, verbose=0,
        callbacks=[History()],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.time_to_accuracy"))
