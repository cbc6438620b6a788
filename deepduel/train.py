"""Trains one image classifier per label axis, all from one read of the shards.

    python -m deepduel.train --flagfile=experiments/artifact_original.flags --data_dir=SHARDS --workdir=RUN

Flags written TASK=VALUE concern one task, a plain VALUE concerns all; the later one wins:

    --backbone=efficientnetv2s --backbone=category=xception

The same command goes on where a run was left. Watch it with: tensorboard --logdir=RUN/tensorboard
"""

import re
import sys

from absl import flags

from deepduel.reading import flags as read_flags
from deepduel.runs import task_flags
from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError

FLAGS = flags.FlagValues()
_VIEWS = 3


flags.DEFINE_string("data_dir", None, "Folder of shards to train on.", flag_values=FLAGS, required=True)
flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS, required=True)
flags.DEFINE_list("tasks", None, "Label axes to learn; default: all of the data.", flag_values=FLAGS)
flags.DEFINE_string("train_split", "train", "Split to train on.", flag_values=FLAGS)
flags.DEFINE_string("validation_split", "validation", "Split to validate on.", flag_values=FLAGS)
task_flags.define(FLAGS)
flags.DEFINE_integer("batch_size", 512, "Images per update.", flag_values=FLAGS)
flags.DEFINE_string(
    "micro_batch", "32",
    "Images per pass through augmentation and backbones, which decides the memory; auto: the fastest that "
    "fits, found by trying and remembered in the run's folder.", flag_values=FLAGS)  # fmt: skip
flags.DEFINE_string(
    "devices", "auto", "That share each batch: auto, all GPUs, or how many.", flag_values=FLAGS
)
flags.DEFINE_bool(
    "dry_run", False,
    "Build everything, print the networks, the memory and the time of an epoch from a few steps, and stop; "
    "nothing is written.", flag_values=FLAGS)  # fmt: skip
flags.DEFINE_bool(
    "shared_backbone", False,
    "One backbone for all tasks, trained by the sum of their losses, with a head for each; the tasks must "
    "agree on all but their heads.", flag_values=FLAGS)  # fmt: skip
flags.DEFINE_string(
    "epochs", "1",
    "To train in all: a number, or a time such as 55min: as many as fit into it, of all sessions together. "
    "The first epoch shows how many; at another speed it is another number.", flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer("seed", 0, "Of weights, order and augmentation.", lower_bound=0, flag_values=FLAGS)
read_flags.define(
    FLAGS, cache_help="For frozen backbones also features, or features:FOLDER: --views augmented views of "
    "each image pass through them once, and epochs train on the outputs.")  # fmt: skip
flags.DEFINE_string(
    "save_every", "300s", "How often the state is saved within an epoch: seconds (300s) or steps (50steps).",
    flag_values=FLAGS)  # fmt: skip
flags.DEFINE_float(
    "max_minutes", 0, "Stop cleanly after so many minutes, to go on later; 0: no limit.", lower_bound=0,
    flag_values=FLAGS)  # fmt: skip
flags.DEFINE_string(
    "profile_steps", "", "Steps of this session to write a trace of for TensorBoard's profiler: 10:20.",
    flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer(
    "views", None, f"With --cache=features: augmented views of each training image; default {_VIEWS}.",
    lower_bound=1, flag_values=FLAGS)  # fmt: skip


def main(options: flags.FlagValues) -> None:
    from deepduel.runs.options import check_sharing

    axes = _axes(options)
    task_flags.settle_precision(options)
    run_options = _run_options(options)
    tasks = task_flags.tasks(options, axes)
    if run_options.shared_backbone:
        check_sharing(tasks)
    cli.quiet_tensorflow()  # usage errors need not wait for it
    import tensorflow as tf

    from deepduel.runs import checkpointing, training_run

    text = flagfile(options) + "".join(f"# {task.augmentation_line}\n" for task in tasks)
    try:
        row = training_run.train(run_options, tasks, flags=text, defaults=flagfile(options, defaults=True))
    except checkpointing.Stopped as stop:
        print(f"{stop}; go on with:\n  python -m deepduel.train --flagfile={options.workdir}/train.flags")
        return
    except tf.errors.OpError as error:
        raise training_run.data_error(error) or error from error
    if options.dry_run:
        return
    accuracies = ", ".join(f"{axis} {row[f'val_{axis}_accuracy']:.2%}" for axis in axes)
    print(f"validation accuracy after epoch {row['epoch']}: {accuracies}")
    print(f"models: {', '.join(f'{options.workdir}/{axis}/best.keras' for axis in axes)}")
    print(f"evaluate: python -m deepduel.evaluate --workdir={options.workdir} --data_dir={options.data_dir}")


def flagfile(options: flags.FlagValues, *, defaults: bool = False) -> str:
    """A flagfile that gives the same run, defaults included; or the file of all defaults."""
    lines = [f"# python -m deepduel.train --flagfile={options.workdir}/train.flags"]
    for name in sorted(options):
        flag = options[name]
        value = flag.default if defaults else flag.value
        if name in ("flagfile", "undefok") or value is None:
            continue
        values = value if isinstance(flag, flags.MultiFlag) else [value]
        lines += [f"--{name}={_text(value)}" for value in values]
    return "\n".join(lines) + "\n"


def _text(value) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _axes(options: flags.FlagValues) -> list[str]:
    from tfrecords_tools.format import manifest

    known = list(manifest.load(options.data_dir).axes)
    axes = known if options.tasks is None else options.tasks
    if not axes:
        raise DataError(
            f"{options.data_dir}: has no label axis to learn; convert with a --layout that names one"
        )
    for axis in axes:
        if axis not in known:
            raise UsageError(
                f"--tasks: {options.data_dir} has no label axis {axis!r}; it has {', '.join(known)}"
            )
    if len(set(axes)) < len(axes):
        raise UsageError(f"--tasks={','.join(axes)}: names a task twice")
    return axes


def _run_options(options: flags.FlagValues):
    from deepduel.runs.length import RunLength
    from deepduel.runs.options import RunOptions

    features = _features_folder(options)
    cache = "none" if features else options.cache
    reading = read_flags.build(options, batch_size=options.batch_size, cache=cache)
    return RunOptions(
        options.data_dir, options.workdir, options.train_split, options.validation_split, reading,
        length=RunLength.parse(options.epochs), micro_batch=_micro_batch(options.micro_batch),
        seed=options.seed, max_minutes=options.max_minutes, features=features, views=options.views or _VIEWS,
        devices=options.devices, shared_backbone=options.shared_backbone, dry_run=options.dry_run,
        profile_steps=_profile_steps(options.profile_steps),
        **_save_every(options.save_every),
    )  # fmt: skip


def _features_folder(options: flags.FlagValues) -> str | None:
    kind, colon, folder = options.cache.partition(":")
    if kind != "features":
        if options.views is not None:
            raise UsageError(f"--views={options.views} needs --cache=features or --cache=features:FOLDER")
        return None
    if colon and not folder:
        raise UsageError("--cache=features: names no folder; write features:FOLDER, or features")
    if options.reader != "random":
        raise UsageError(f"--cache={options.cache} needs --reader=random: rows are read by record number")
    return folder or f"{options.workdir}/features"


def _micro_batch(text: str) -> int | None:
    if text != "auto" and not re.fullmatch(r"-?\d+", text):
        raise UsageError(f"--micro_batch must be auto or a number, got {text!r}")
    return None if text == "auto" else int(text)


def _profile_steps(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if text and (not match or not 1 <= int(match[1]) <= int(match[2])):
        raise UsageError(f"--profile_steps must be FIRST:LAST, counted from 1, got {text!r}")
    return (int(match[1]), int(match[2])) if match else None


def _save_every(text: str) -> dict[str, float | None]:
    match = re.fullmatch(r"(\d+)(s|steps)", text)
    if not match or int(match[1]) < 1:
        raise UsageError(f"--save_every must be like 300s or 50steps, got {text!r}")
    amount, unit = int(match[1]), match[2]
    return {
        "save_seconds": amount if unit == "s" else None,
        "save_steps": amount if unit == "steps" else None,
    }


def entry() -> int:
    return cli.run(main, FLAGS, name="deepduel.train")


if __name__ == "__main__":
    sys.exit(entry())
