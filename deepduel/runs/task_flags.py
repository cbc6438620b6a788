"""Flags that concern one task, and the options they give: VALUE for all tasks, TASK=VALUE for one.

--backbone=efficientnetv2s --backbone=category=xception     the later one wins
"""

import re

from absl import flags

from deepduel.augmentation import flags as augmentation_flags
from deepduel.training import precision
from tfrecords_tools.errors import UsageError

_FLAGS = {  # name: (default, help)
    "backbone": ("xception", "A network of keras.applications, forensic_cnn or small_cnn."),
    "head": ("avg,dropout:0.5,dense:512", "avg, max or flatten, then dropout:RATE and dense:UNITS."),
    "weights": (
        "auto",
        "Of the backbone: imagenet, none, a file, or auto: none for small_cnn and forensic_cnn, else "
        "imagenet.",
    ),
    "fine_tune": (
        "none",
        "Train the backbone too: none, all, or last:N, its last N layers with weights. small_cnn and "
        "forensic_cnn without --weights: none means all.",
    ),
    "batch_norm": (
        "auto",
        "Of a backbone that is trained: frozen keeps the statistics it came with; trained; auto: trained "
        "with --fine_tune=all, else frozen.",
    ),
    "input_filter": (
        "none",
        "Fixed filter in front of the backbone: none, highpass, srm (noise residuals) or "
        "spectrum (log magnitudes).",
    ),
    "stem_stride": (
        "0",
        "Of the backbone's first convolution that has a stride: 1 loses no pixel early; 0: its own.",
    ),
    "mirrored": (
        "false",
        "true: the saved model gives the mean of an image's and of its mirror image's probabilities, for "
        "twice the time of prediction; false.",
    ),
    "image_size": ("224", "Side of the network's square input, pixels."),
    "augmentation": (
        "original",
        "Preset: original (Deepfake Duel's), forensic, robust, light or none; its parameters have flags.",
    ),
    "learning_rate": ("0.001", "Of the optimizer; the highest of the schedule."),
    "precision": (
        "float32",
        "float32, mixed_float16, mixed_bfloat16, or auto: the fastest that this machine computes in without "
        "emulating it; the run keeps what it came to.",
    ),
    "optimizer": ("adam", "adam, adamw, muon, nadam, rmsprop, lion, or sgd (Nesterov momentum 0.9)."),
    "weight_decay": ("auto", "Decoupled, on kernels only; auto: 0.004 for adamw and muon, else 0."),
    "schedule": ("constant", "Of the learning rate: constant, or cosine, down to 0 over all --epochs."),
    "warmup": ("0", "How long the rate grows from 0: 500steps, or 0.5epochs."),
    "clip_norm": ("0", "Longest that the gradients may be, together; 0: any length."),
    "ema": (
        "0",
        "Decay of running averages of the weights, which validation and saved models use, such as 0.999; "
        "0: none.",
    ),
    "label_smoothing": ("0", "Share of each label that is spread over all classes, such as 0.1."),
    "class_weights": (
        "none",
        "Of the loss: none, balanced (rare classes weigh more), or NAME=2,OTHER=0.5; for one task "
        "TASK=NAME=2.",
    ),
    "monitor": ("accuracy", "Of validation, accuracy, auc or loss: which epoch is the best."),
    "early_stopping": ("0", "Epochs without a better one after which a task stops; 0: never."),
}


def define(flag_values: flags.FlagValues) -> None:
    for name, (default, text) in _FLAGS.items():
        flags.DEFINE_multi_string(
            name, default, f"{text} VALUE or TASK=VALUE; may be repeated.", flag_values=flag_values
        )
    augmentation_flags.define(flag_values)


def tasks(options: flags.FlagValues, axes: list[str]) -> list:
    """One `TaskOptions` per axis. Raises UsageError."""
    chosen = {
        name: per_task(name, [default, *options[name].value], axes) for name, (default, _) in _FLAGS.items()
    }
    changes = augmentation_flags.given(options, axes, per_task)
    return [_task(axis, {name: chosen[name][axis] for name in _FLAGS}, changes[axis]) for axis in axes]


def settle_precision(options: flags.FlagValues) -> None:
    """Puts what "auto" comes to on this machine in its place, so that train.flags names it."""
    values = options["precision"].value
    if any(value.rpartition("=")[2] == "auto" for value in values):
        best = precision.best()
        options["precision"].value = [re.sub("auto$", best, value) for value in values]


def per_task(name: str, values: list[str], axes: list[str], *, required: bool = True) -> dict[str, str]:
    """["a", "category=b"] -> {axis: value}; a later entry wins over an earlier one.

    Raises:
      UsageError: an entry names a task that is not trained, or a task gets no value where one is required.
    """
    chosen: dict[str, str] = {}
    for entry in values:
        task, equals, value = entry.partition("=")
        if not equals:
            chosen = dict.fromkeys(axes, entry)
        elif task in axes:
            chosen[task] = value
        elif name == "class_weights":  # the one whose values hold an equals sign
            chosen = dict.fromkeys(axes, entry)
        else:
            raise UsageError(f"--{name}={entry}: {task!r} is not one of the tasks ({', '.join(axes)})")
    missing = [axis for axis in axes if axis not in chosen]
    if missing and required:
        raise UsageError(f"--{name}: no value for {', '.join(missing)}; add a plain --{name}=VALUE first")
    return chosen


def _task(axis: str, value: dict[str, str], changes: dict[str, str]):
    from deepduel.networks.architecture import OWN_BACKBONES, Architecture
    from deepduel.runs.options import TaskOptions
    from deepduel.training.optimizer_options import OptimizerOptions

    small = value["backbone"] in OWN_BACKBONES
    weights = value["weights"] if value["weights"] != "auto" else "none" if small else "imagenet"
    augmentation, mixing = augmentation_flags.build(value["augmentation"], changes)
    architecture = Architecture(
        backbone=value["backbone"],
        head=value["head"],
        image_size=_number("image_size", value["image_size"], int),
        weights=weights,
        fine_tune="all"
        if small and weights == "none" and value["fine_tune"] == "none"
        else value["fine_tune"],
        batch_norm=value["batch_norm"],
        precision=value["precision"],
        input_filter=value["input_filter"],
        stem_stride=_number("stem_stride", value["stem_stride"], int),
        mirrored=_truth("mirrored", value["mirrored"]),
    )
    decay = value["weight_decay"]
    recipe = OptimizerOptions(
        optimizer=value["optimizer"],
        learning_rate=_number("learning_rate", value["learning_rate"], float),
        weight_decay=None if decay == "auto" else _number("weight_decay", decay, float),
        schedule=value["schedule"],
        warmup=value["warmup"],
        clip_norm=_number("clip_norm", value["clip_norm"], float),
    )
    return TaskOptions(
        axis,
        architecture,
        augmentation,
        recipe,
        mixing,
        label_smoothing=_number("label_smoothing", value["label_smoothing"], float),
        class_weights=value["class_weights"],
        average=_number("ema", value["ema"], float),
        monitor=value["monitor"],
        patience=_number("early_stopping", value["early_stopping"], int),
    )


def _number(name: str, text: str, kind: type):
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"--{name} must be a number, got {text!r}") from None


def _truth(name: str, text: str) -> bool:
    try:
        return augmentation_flags.truth(text)
    except KeyError:
        raise UsageError(f"--{name} must be true or false, got {text!r}") from None
