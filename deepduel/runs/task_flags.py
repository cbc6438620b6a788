"""Flags that concern one task, and the options they give: VALUE for all tasks, TASK=VALUE for one.

--backbone=efficientnetv2s --backbone=category=xception     the later one wins
"""

import re
from typing import TYPE_CHECKING, TypeVar

from absl import flags

from deepduel.augmentation import flags as augmentation_flags
from deepduel.augmentation.parameters import parse_bool
from deepduel.training import devices
from tfrecords_tools.errors import UsageError

if TYPE_CHECKING:
    from deepduel.networks.architecture import Architecture
    from deepduel.runs.options import TaskOptions
    from deepduel.training.optimizer_options import OptimizerOptions

_Number = TypeVar("_Number", int, float)

_FLAGS = {  # name: (default, help)
    "backbone": (
        "auto",
        "A network of keras.applications, or forensic_cnn or small_cnn. auto chooses one for the images and "
        "the machine, together with those of --head, --image_size, --augmentation, --batch_size, --epochs, "
        "--optimizer, --learning_rate and --schedule that are not given.",
    ),
    "head": (
        "avg,dropout:0.5,dense:512",
        "Layers on top of the backbone: avg, max or flatten, then any of dropout:RATE and dense:UNITS.",
    ),
    "weights": (
        "auto",
        "Initial weights of the backbone: imagenet, none (random), or a file. auto is none for small_cnn and "
        "forensic_cnn and with --start_from, otherwise imagenet.",
    ),
    "start_from": (
        "none",
        "Another run whose best model to start from, RUN or RUN/TASK: its backbone, and as much of its head "
        "as has the same layers and classes. none disables it.",
    ),
    "fine_tune": (
        "none",
        "Which part of the backbone to train: none, all, or last:N for its last N layers with weights. "
        "small_cnn and forensic_cnn are trained completely unless --weights or --start_from is given.",
    ),
    "batch_norm": (
        "auto",
        "Batch norm of a trained backbone: frozen keeps the statistics of its initial weights, trained "
        "updates them. auto is trained with --fine_tune=all, otherwise frozen.",
    ),
    "input_filter": (
        "none",
        "Fixed filter in front of the backbone: none, highpass, srm (noise residuals) or spectrum (logarithm "
        "of the magnitudes of the Fourier transform).",
    ),
    "stem_stride": (
        "0",
        "Stride of the backbone's first strided convolution: 1 keeps the full resolution; 0 leaves the "
        "backbone as it is.",
    ),
    "mirrored": (
        "false",
        "Flip test-time augmentation in the saved model: average the predictions for an image and its mirror "
        "image, at twice the prediction time: true or false.",
    ),
    "image_size": ("224", "Side of the network's square input in pixels."),
    "augmentation": (
        "original",
        "Preset of the augmentation: original (Deepfake Duel's), forensic (no interpolation), robust, light "
        "or none. Flags for single parameters change it.",
    ),
    "learning_rate": ("0.001", "Peak learning rate."),
    "precision": (
        "float32",
        "Keras' dtype policy: float32, mixed_float16, mixed_bfloat16, or auto, which picks the fastest that "
        "the hardware supports natively and records it in train.flags.",
    ),
    "optimizer": (
        "adam",
        "Optimizer: adam, adamw, muon, nadam, rmsprop, lion, or sgd (with Nesterov momentum 0.9).",
    ),
    "weight_decay": (
        "auto",
        "Decoupled weight decay, of kernels only; auto is 0.004 for adamw and muon, otherwise 0.",
    ),
    "schedule": (
        "constant",
        "Learning-rate schedule: constant; cosine (decays to 0 over all --epochs); onecycle (rises in the "
        "first 30 % of them, then falls); step or step:EPOCHS (divides the rate by 10 after each third of "
        "the run, or every EPOCHS epochs); plateau or plateau:EPOCHS (divides it by 5 after 5, or EPOCHS, "
        "epochs without improvement of --monitor).",
    ),
    "warmup": (
        "0",
        "Linear warm-up of the learning rate, in steps or epochs, such as 500steps or 0.5epochs; 0 for none.",
    ),
    "clip_norm": ("0", "Maximum global gradient norm; 0 disables clipping."),
    "ema": (
        "0",
        "Decay of an exponential moving average of the weights, such as 0.999, which validation and saved "
        "models use; 0 disables it.",
    ),
    "label_smoothing": (
        "0",
        "Share of each label that is spread over all classes, such as 0.1; 0 disables it.",
    ),
    "class_weights": (
        "none",
        "Weights of the classes in the loss: none, balanced (inverse to the number of images), or "
        "NAME=2,OTHER=0.5; for one task TASK=NAME=2.",
    ),
    "monitor": ("accuracy", "Validation metric that decides which epoch is the best: accuracy, auc or loss."),
    "early_stopping": (
        "0",
        "Stop a task after this many epochs without improvement of --monitor; 0 disables it.",
    ),
}

NAMES = tuple(_FLAGS)


def define(flag_values: flags.FlagValues) -> None:
    """Defines these flags and those of the augmentation's parameters."""
    for name, (default, text) in _FLAGS.items():
        flags.DEFINE_multi_string(name, default, f"{text} [per task]", flag_values=flag_values)
    augmentation_flags.define(flag_values)


def tasks(options: flags.FlagValues, axes: list[str]) -> "list[TaskOptions]":
    """The options of the task of each axis. Raises UsageError."""
    values = {
        name: per_task(name, [default, *_texts(options, name)], axes) for name, (default, _) in _FLAGS.items()
    }
    unnamed = [axis for axis in axes if values["backbone"][axis] == "auto"]
    if 0 < len(unnamed) < len(axes):
        raise UsageError(
            f"--backbone: auto chooses for all tasks or for none; name one for {' and '.join(unnamed)} too, "
            f"as --backbone={unnamed[0]}=NAME"
        )
    changes = augmentation_flags.texts_per_task(options, axes, per_task)
    return [_task(axis, {name: values[name][axis] for name in _FLAGS}, changes[axis]) for axis in axes]


def replace_auto_precision(options: flags.FlagValues) -> None:
    """Replaces "auto" by the precision that is the fastest on this machine, so that train.flags names it."""
    values = _texts(options, "precision")
    if any(value.rpartition("=")[2] == "auto" for value in values):
        best = devices.fastest_precision()
        options["precision"].value = [re.sub("auto$", best, value) for value in values]


def _texts(options: flags.FlagValues, name: str) -> list[str]:
    return options[name].value or []


def per_task(name: str, values: list[str], axes: list[str], *, required: bool = True) -> dict[str, str]:
    """["a", "category=b"] -> {axis: value}; a later entry overrides an earlier one.

    What stands before an equals sign and is no name, such as a folder in runs/rate=0.1/best.keras, is part of
    a value.
    Args:
      name: of the flag.
      required: whether every task must have a value.

    Raises:
      UsageError: an entry names a task that is not trained, or a task has no value where one is required.
    """
    chosen: dict[str, str] = {}
    for entry in values:
        task, equals, value = entry.partition("=")
        if not equals or not task.replace("-", "_").isidentifier():
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


def _task(axis: str, value: dict[str, str], changes: dict[str, str]) -> "TaskOptions":
    from deepduel.runs.options import TaskOptions

    augmentation, mixing = augmentation_flags.build(value["augmentation"], changes)
    return TaskOptions(
        axis,
        _architecture(value),
        augmentation,
        _optimizer(value),
        mixing,
        label_smoothing=_number("label_smoothing", value["label_smoothing"], float),
        class_weights=value["class_weights"],
        ema=_number("ema", value["ema"], float),
        monitor=value["monitor"],
        start_from=None if value["start_from"] == "none" else value["start_from"],
        early_stopping=_number("early_stopping", value["early_stopping"], int),
    )


def _architecture(value: dict[str, str]) -> "Architecture":
    from deepduel.networks.architecture import OWN_BACKBONES, Architecture

    own, weights, fine_tune = value["backbone"] in OWN_BACKBONES, value["weights"], value["fine_tune"]
    starts = value["start_from"] != "none"
    if starts and weights not in ("auto", "none"):
        raise UsageError(f"--start_from gives the backbone its weights; leave --weights={weights} out")
    if weights == "auto":
        weights = "none" if own or starts else "imagenet"
    if own and weights == "none" and fine_tune == "none" and not starts:
        fine_tune = "all"
    return Architecture(
        backbone=value["backbone"],
        head=value["head"],
        image_size=_number("image_size", value["image_size"], int),
        weights=weights,
        fine_tune=fine_tune,
        batch_norm=value["batch_norm"],
        precision=value["precision"],
        input_filter=value["input_filter"],
        stem_stride=_number("stem_stride", value["stem_stride"], int),
        mirrored=_truth("mirrored", value["mirrored"]),
    )


def _optimizer(value: dict[str, str]) -> "OptimizerOptions":
    from deepduel.training.optimizer_options import OptimizerOptions

    decay = value["weight_decay"]
    return OptimizerOptions(
        optimizer=value["optimizer"],
        learning_rate=_number("learning_rate", value["learning_rate"], float),
        weight_decay=None if decay == "auto" else _number("weight_decay", decay, float),
        schedule=value["schedule"],
        warmup=value["warmup"],
        clip_norm=_number("clip_norm", value["clip_norm"], float),
    )


def _number(name: str, text: str, kind: type[_Number]) -> _Number:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"--{name} must be a number, got {text!r}") from None


def _truth(name: str, text: str) -> bool:
    try:
        return parse_bool(text)
    except ValueError:
        raise UsageError(f"--{name} must be true or false, got {text!r}") from None
