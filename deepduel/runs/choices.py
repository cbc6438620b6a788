"""What a run without flags trains: a network and its settings that follow from the images and the machine.

They are chosen where --backbone is auto, for all flags below that the command line leaves out, and written to
train.flags like any other value. A run that was begun keeps its choice, and one that starts from another has
the settings of that one. The module imports no TensorFlow.
"""

import os
import pathlib
import re
import socket
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

from deepduel.decoding.split import Split
from deepduel.networks import start_model
from deepduel.networks.run_card import RunCard
from deepduel.runs import task_flags
from deepduel.training import devices
from tfrecords_tools import host_cpus, regular_files
from tfrecords_tools.progress import counted

CHOSEN = (
    "backbone", "head", "image_size", "augmentation", "batch_size", "epochs", "optimizer", "learning_rate",
    "schedule", "cache", "views",
)  # fmt: skip
_OF_START = (*(name for name in CHOSEN if name not in ("cache", "views")), "input_filter", "stem_stride")
PRETRAINED, WEIGHTS_FILE = "efficientnetv2b0", "efficientnetv2-b0_notop.h5"
_HOST, _TIMEOUT_SECONDS = ("storage.googleapis.com", 443), 2.0  # from which Keras downloads
_SMALLEST_FOR_IMAGENET = 96  # pixels; smaller images show less than what ImageNet's networks look for
_UPDATES = 2000  # from random weights
_MOST_EPOCHS = 40
_FEATURE_EPOCHS = 30  # of the head alone, on stored features
_IMAGE_EPOCHS = 10  # where each epoch runs the network on all images
_WITHOUT_FEATURES = ("cluster", "data_workers", "fine_tune", "mixup_alpha", "cutmix_alpha")  # if given
_MOST_VIEWS = 10_000  # images of which several augmented views are stored


class Choice(NamedTuple):
    """Flags that are chosen together, with their values, and why."""

    flags: dict[str, list[str]]
    reason: str


def choose(options: flags.FlagValues, axes: list[str]) -> list[str]:
    """Sets the flags in CHOSEN that the command line leaves out; returns lines that say what, and why."""
    if any(value.rpartition("=")[2] != "auto" for value in options.backbone or []):
        return []
    stored = _stored(pathlib.Path(options.workdir, "train.flags"))
    if stored:
        _set(options, stored)
        return []
    starts = task_flags.per_task("start_from", options.start_from or [], axes, required=False)
    starts = {axis: name for axis, name in starts.items() if name != "none"}
    if starts:
        values = _of_start(starts)
        words = [f"--{name}={value}" for name in _set(options, values) for value in values[name]]
        return [f"settings of {' and '.join(dict.fromkeys(starts.values()))}: {' '.join(words)}"]
    split = Split(options.data_dir, options.train_split)
    if not len(split):
        return []  # an error that says so comes later
    lines = ["chosen for these images and this machine; with --backbone=NAME, nothing is chosen:"]
    side = int(np.median(split.sizes.min(axis=1)))
    for choice in _for_images(len(split), side, axes, features=_may_store_features(options)):
        words = [f"--{name}={value}" for name in _set(options, choice.flags) for value in choice.flags[name]]
        if words:
            lines.append(f"  {' '.join(words)}: {choice.reason}")
    return lines


def _of_start(starts: dict[str, str]) -> dict[str, list[str]]:
    """The settings of the runs that tasks start from, `starts` is {axis: what --start_from names for it}."""
    values: dict[str, list[str]] = {}
    for axis, name in starts.items():
        run, task = start_model.run_and_task(name, axis)
        stored = _stored(run / "train.flags", _OF_START)
        for flag, texts in stored.items():
            if flag not in task_flags.NAMES:
                values.setdefault(flag, texts)
                continue
            value = task_flags.per_task(flag, texts, list(RunCard.load(run).tasks), required=False).get(task)
            if value is not None:
                values.setdefault(flag, [value])
                if value != values[flag][0]:
                    values[flag].append(f"{axis}={value}")
    return values


def _set(options: flags.FlagValues, values: dict[str, list[str]]) -> list[str]:
    """Sets the flags that the command line leaves out, and returns their names."""
    names = [name for name in values if options[name].using_default_value or name == "backbone"]
    for name in names:
        flag = options[name]
        multiple = isinstance(flag, flags.MultiFlag)
        flag.value = values[name] if multiple else flag.parser.parse(values[name][-1])
    return names


def _stored(path: pathlib.Path, names: Sequence[str] = CHOSEN) -> dict[str, list[str]]:
    """The flags of a run that was begun, of those in `names`; nothing for a new one."""
    if not path.exists():
        return {}
    stored: dict[str, list[str]] = {}
    for line in regular_files.read_text(path).splitlines():
        match = re.fullmatch(r"--(\w+)=(.*)", line.strip())
        if match and match[1] in names:
            stored.setdefault(match[1], []).append(match[2])
    return stored


def _may_store_features(options: flags.FlagValues) -> bool:
    """Whether nothing on the command line speaks against --cache=features."""
    if not options["cache"].using_default_value:
        return options.cache.partition(":")[0] == "features"
    return options.reader == "random" and all(options[name].using_default_value for name in _WITHOUT_FEATURES)


def _for_images(images: int, side: int, axes: list[str], *, features: bool) -> list[Choice]:
    """The choices.

    Args:
      images: how many are trained on.
      side: median of their shorter sides in pixels.
      axes: the label axes to learn.
      features: whether those of a frozen network may be stored.
    """
    batch = 32 if images < 20_000 else 64
    steps = -(-images // batch)
    presets = {axis: "forensic" if axis == "authenticity" else "light" for axis in axes}
    why_not = _no_imagenet(side)
    return [
        *(_small_network(side, steps, why_not) if why_not else _pretrained(images, features)),
        Choice(
            {"augmentation": [f"{axis}={preset}" for axis, preset in presets.items()]},
            "forensic keeps the traces of generators, light suits other labels",
        ),
        Choice(
            {"batch_size": [str(batch)]}, f"{counted(images, 'image')}, {counted(steps, 'update')} per epoch"
        ),
    ]


def _small_network(side: int, steps: int, why: str) -> list[Choice]:
    """A small network from random weights.

    Args:
      steps: updates per epoch.
      why: why it starts from random weights.
    """
    gpu = devices.NVIDIA_DEVICE.exists()
    size = min(max(side // 16 * 16, 16), 128 if gpu else 96)
    epochs = min(max(round(_UPDATES / steps), 5), _MOST_EPOCHS)
    few = steps * _MOST_EPOCHS < _UPDATES
    enough = "more epochs of so few images help little" if few else f"about {_UPDATES:,} are enough"
    machine = "a GPU" if gpu else counted(host_cpus.available(), "CPU core")
    return [
        Choice({"backbone": ["small_cnn"], "head": ["avg"]}, f"from random weights, since {why}"),
        Choice({"image_size": [str(size)]}, f"the median image has {side} pixels; {machine}"),
        Choice(
            {"optimizer": ["muon"], "learning_rate": ["0.003"], "schedule": ["cosine"]},
            "needs few updates from random weights",
        ),
        Choice({"epochs": [str(epochs)]}, f"{counted(steps * epochs, 'update')}; {enough}"),
    ]


def _pretrained(images: int, features: bool) -> list[Choice]:
    """A network with ImageNet weights, whose features are computed once if they may be stored."""
    views = 3 if images <= _MOST_VIEWS else 1
    length = Choice({"epochs": [str(_IMAGE_EPOCHS)]}, "each augments the images anew")
    if features:
        length = Choice(
            {"epochs": [str(_FEATURE_EPOCHS)], "cache": ["features"], "views": [str(views)]},
            "the network runs once per augmented view, the head in every epoch",
        )
    return [
        Choice({"backbone": [PRETRAINED], "head": ["avg,dropout:0.3"]}, "with ImageNet weights"),
        Choice({"image_size": ["224"]}, "the size of its ImageNet images"),
        Choice(
            {"optimizer": ["adamw"], "learning_rate": ["0.001"], "schedule": ["cosine"]},
            "only the new head is trained",
        ),
        length,
    ]


def _no_imagenet(side: int) -> str:
    """Why no network with ImageNet weights is chosen; "" if one is."""
    if side < _SMALLEST_FOR_IMAGENET:
        return f"images of {side} pixels are too small for networks with ImageNet weights"
    home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
    if (home / "models" / WEIGHTS_FILE).is_file():
        return ""
    try:
        socket.create_connection(_HOST, _TIMEOUT_SECONDS).close()
    except OSError:
        return f"no ImageNet weights are in {home / 'models'}, and they cannot be downloaded now"
    return ""
