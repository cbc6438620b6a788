"""The flags of deepduel.train, in groups.

The flags of single tasks are defined in `task_flags`, those of the augmentation's parameters in
augmentation.flags. `run_options` turns the flags of the run itself into options.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from deepduel.augmentation import flags as augmentation_flags
from deepduel.reading import flags as read_flags
from deepduel.runs import task_flags
from deepduel.runs.run_options import DEFAULT_VIEWS


def _augmentation_parameters() -> tuple[str, ...]:
    only_these = flags.FlagValues()
    augmentation_flags.define(only_these)
    return tuple(only_these)


# The flags that --help shows, by group; --helpfull shows the remaining ones of each group too.
USUAL = {
    "Data": ("data_dir", "tasks", "train_split", "validation_split", "cache"),
    "Model": ("backbone", "head", "weights", "fine_tune", "image_size"),
    "Optimisation": (
        "epochs", "batch_size", "micro_batch", "optimizer", "learning_rate", "schedule", "class_weights",
        "early_stopping", "precision",
    ),
    "Augmentation": ("augmentation",),
    "Run": ("workdir", "seed", "max_minutes"),
    "Debugging": ("dry_run", "find_learning_rate"),
}  # fmt: skip
FURTHER = {
    "Data": (
        "sampling", "views", "host_size", "fit", "native_resolution", "reader", "fast_decode", "threads",
        "on_error", "remote_cache", "data_workers",
    ),
    "Model": ("start_from", "batch_norm", "input_filter", "stem_stride", "shared_backbone", "mirrored"),
    "Optimisation": (
        "warmup", "weight_decay", "clip_norm", "ema", "label_smoothing", "monitor", "jit_compile",
    ),
    "Augmentation": _augmentation_parameters(),
    "Run": ("devices", "cluster", "worker", "save_every", "keep_epochs"),
    "Debugging": ("profile_steps",),
}  # fmt: skip


class Flag(NamedTuple):
    """One flag of the run itself; `options` are those of absl's function that defines it."""

    define: Callable
    name: str
    default: Any
    help: str
    options: dict[str, Any] = {}


_FLAGS = (
    Flag(flags.DEFINE_string, "data_dir", None, "Folder of the shards to train on.", {"required": True}),
    Flag(
        flags.DEFINE_list, "tasks", None,
        "Label axes to train on, separated by commas; by default all of the data set.",
    ),
    Flag(
        flags.DEFINE_string, "train_split", "train",
        "Split to train on, or a part of one such as train[:80%].",
    ),
    Flag(
        flags.DEFINE_string, "validation_split", "validation",
        "Split to validate on after each epoch, or a part of one such as train[80%:]. If the data set has no "
        "validation split, a fifth of the training split is held out.",
    ),
    Flag(
        flags.DEFINE_integer, "views", None,
        f"With --cache=features: augmented views of each training image; {DEFAULT_VIEWS} by default.",
        {"lower_bound": 1},
    ),
    Flag(
        flags.DEFINE_string, "workdir", None,
        "Folder of the run: models, history and state. The same command resumes the run in it.",
        {"required": True},
    ),
    Flag(
        flags.DEFINE_string, "epochs", "1",
        "Total number of epochs, or a time budget such as 55min (summed over sessions); the number that fits "
        "is estimated after the first epoch.",
    ),
    Flag(flags.DEFINE_integer, "batch_size", 512, "Images per update of the weights."),
    Flag(
        flags.DEFINE_string, "micro_batch", "32",
        "Images per pass through augmentation and backbones, which decides how much memory is needed; auto "
        "measures which size is the fastest that fits, and stores it in the run's folder.",
    ),
    Flag(
        flags.DEFINE_enum, "jit_compile", "auto",
        "Compile the networks with XLA. auto measures on a GPU whether that is faster, and stores the answer "
        "in the run's folder; on a CPU it is false, since XLA's convolutions are slow there.",
        {"enum_values": ["auto", "true", "false"]},
    ),
    Flag(flags.DEFINE_string, "devices", "auto", "Number of GPUs to train on, or auto for all."),
    Flag(
        flags.DEFINE_string, "cluster", "",
        "Train with several processes, one per GPU, on one or several machines. The value lists their "
        "addresses, such as gpu1:5060,gpu2:5060, each with a port of its own; slurm takes them from srun's "
        "variables, tf_config from TF_CONFIG. Start the same command for each process. Use a network that "
        "nobody else can reach.",
    ),
    Flag(
        flags.DEFINE_string, "worker", "",
        "With addresses in --cluster: the number of this process and of all processes, such as 0/2 for the "
        "first of two. Worker 0 writes the run.",
    ),
    Flag(
        flags.DEFINE_bool, "shared_backbone", False,
        "Train one backbone for all tasks, on the sum of their losses, with a head for each. The tasks must "
        "have the same options except for heads, optimizers and losses.",
    ),
    Flag(
        flags.DEFINE_integer, "seed", 0,
        "Random seed for weight initialisation, data order and augmentation.",
        {"lower_bound": 0},
    ),
    Flag(
        flags.DEFINE_string, "save_every", "300s",
        "How often the state is saved within an epoch, in seconds (300s) or steps (50steps).",
    ),
    Flag(
        flags.DEFINE_integer, "keep_epochs", 0,
        "Keep the models of this many of the latest epochs, besides best.keras; 0 keeps all.",
        {"lower_bound": 0},
    ),
    Flag(
        flags.DEFINE_float, "max_minutes", 0,
        "Save the state and stop after this many minutes; the same command resumes. 0 for no limit.",
        {"lower_bound": 0},
    ),
    Flag(
        flags.DEFINE_bool, "find_learning_rate", False,
        "Only try learning rates from low to high for up to 100 steps, suggest one, and draw the curve of "
        "the loss in WORKDIR/find_learning_rate.",
    ),
    Flag(
        flags.DEFINE_bool, "dry_run", False,
        "Build everything, print the networks, the memory and disk space that they need, and the time of an "
        "epoch estimated from a few steps, and exit; nothing is written.",
    ),
    Flag(
        flags.DEFINE_string, "profile_steps", "",
        "First and last step of this session to trace for TensorBoard's profiler, such as 10:20.",
    ),
)  # fmt: skip


def define(flag_values: flags.FlagValues) -> None:
    """Defines all flags of deepduel.train."""
    for flag in _FLAGS:
        flag.define(flag.name, flag.default, help=flag.help, flag_values=flag_values, **flag.options)
    read_flags.define(
        flag_values,
        cache_help="For frozen backbones also features or features:FOLDER: the features of --views augmented "
        "views of each image are computed once, and epochs train on them.",
    )
    task_flags.define(flag_values)
