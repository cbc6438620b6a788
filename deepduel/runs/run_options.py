"""From the flags of deepduel.train to the options of the run, and back to a flagfile.

The module imports no TensorFlow, so that a mistyped flag is refused at once.
"""

import os
import re
import shlex
from typing import TYPE_CHECKING

from absl import flags

from deepduel.reading import flags as read_flags
from tfrecords_tools.errors import UsageError

if TYPE_CHECKING:
    from deepduel.runs.options import RunOptions, SaveInterval

DEFAULT_VIEWS = 3


def from_flags(options: flags.FlagValues) -> "RunOptions":
    """The options of the run. Raises UsageError when flags contradict one another."""
    from deepduel.reading.order import Worker
    from deepduel.runs.length import RunLength
    from deepduel.runs.options import RunOptions
    from deepduel.training.cluster import from_flags as from_cluster_flags

    features = _features_folder(options)
    cache = "none" if features else options.cache
    cluster = from_cluster_flags(options.cluster, options.worker, os.environ)
    worker = cluster.worker if cluster else Worker()
    reading = read_flags.build(options, batch_size=options.batch_size, cache=cache, worker=worker)
    return RunOptions(
        options.data_dir,
        options.workdir,
        options.train_split,
        options.validation_split,
        reading,
        length=RunLength.parse(options.epochs),
        micro_batch=_micro_batch(options.micro_batch),
        seed=options.seed,
        save_interval=_save_interval(options.save_every),
        max_minutes=options.max_minutes,
        features=features,
        views=options.views or DEFAULT_VIEWS,
        devices=options.devices,
        shared_backbone=options.shared_backbone,
        dry_run=options.dry_run,
        keep_epochs=options.keep_epochs,
        find_learning_rate=options.find_learning_rate,
        profile_steps=_profile_steps(options.profile_steps),
        jit_compile={"auto": None, "true": True, "false": False}[options.jit_compile],
        cluster=cluster,
    )


def flagfile(options: flags.FlagValues, *, defaults: bool = False) -> str:
    """A flagfile that gives the same run, defaults included; or the file of all defaults.

    It does not say which processes train together: a run may be resumed with any number of them.
    """
    command = shlex.join(["python", "-m", "deepduel.train", f"--flagfile={options.workdir}/train.flags"])
    lines = [f"# {command}"]
    for name in sorted(options):
        flag = options[name]
        value = flag.default if defaults else flag.value
        if name in ("flagfile", "undefok", "cluster", "worker") or value is None:
            continue
        values = value if isinstance(flag, flags.MultiFlag) else [value]
        lines += [f"--{name}={_text(value)}" for value in values]
    return "\n".join(lines) + "\n"


def _features_folder(options: flags.FlagValues) -> str | None:
    kind, colon, folder = options.cache.partition(":")
    if kind != "features":
        if options.views is not None:
            raise UsageError(f"--views={options.views} needs --cache=features or --cache=features:FOLDER")
        return None
    if colon and not folder:
        raise UsageError("--cache=features: names no folder; write features:FOLDER, or features")
    if options.data_workers:
        raise UsageError(
            f"--cache={options.cache} computes features from the images once, on this machine; leave "
            "--data_workers out"
        )
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


def _save_interval(text: str) -> "SaveInterval":
    from deepduel.runs.options import SaveInterval

    match = re.fullmatch(r"(\d+)(s|steps)", text)
    if not match or int(match[1]) < 1:
        raise UsageError(f"--save_every must be like 300s or 50steps, got {text!r}")
    amount = int(match[1])
    return SaveInterval(amount, None) if match[2] == "s" else SaveInterval(None, amount)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
