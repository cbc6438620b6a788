"""Optimizers, with their learning-rate schedules."""

import contextlib

import keras
import tensorflow as tf

from deepduel.training.muon import Muon
from deepduel.training.optimizer_options import OptimizerOptions
from deepduel.training.schedules import Cosine, OneCycle, Plateau, Schedule, Shape, Steps
from tfrecords_tools.errors import UsageError

_MAKERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "muon": Muon,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "sgd": lambda rate, **options: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **options),
}
_DECAYING = ("adamw", "muon")  # need a number, and decay by default
_DECAY = 0.004  # Keras' default for AdamW


def build(
    options: OptimizerOptions,
    *,
    steps_per_epoch: int,
    epochs: int | None,
    scales_loss: bool,
    precision: str = "float32",
    planned_steps: tf.Variable | None = None,
    plateau: Plateau | None = None,
) -> keras.Optimizer:
    """The optimizer of one task.

    Args:
      steps_per_epoch: updates per epoch.
      epochs: of the run, for schedules that span it; None where its length is a time, and `planned_steps`
        says how many steps a cosine spans.
      scales_loss: whether to wrap it in a LossScaleOptimizer, for backbones trained in float16.
      precision: the network's; with "mixed_bfloat16" muon computes in bfloat16 too.
      planned_steps: steps of the run, where that is decided while it runs; 0 as long as it is not.
      plateau: shape of the schedule "plateau".

    Raises:
      UsageError: the warm-up is as long as the run, or the schedule needs a number of epochs.
    """
    decays_by_default = options.optimizer in _DECAYING
    decay = options.weight_decay
    if decay is None:
        decay = _DECAY if decays_by_default else 0
    rate = _rate(options, steps_per_epoch, epochs, planned_steps, plateau)
    in_bfloat16 = options.optimizer == "muon" and precision == "mixed_bfloat16"
    dtype = {"compute_dtype": "bfloat16"} if in_bfloat16 else {}
    optimizer = _MAKERS[options.optimizer](
        rate, weight_decay=decay or (0.0 if decays_by_default else None), **dtype
    )
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if scales_loss else optimizer


def _rate(
    options: OptimizerOptions,
    steps_per_epoch: int,
    epochs: int | None,
    planned_steps: tf.Variable | None,
    plateau: Plateau | None,
) -> float | Schedule:
    warmup = options.warmup_steps(steps_per_epoch)
    steps = steps_per_epoch * epochs if epochs else None
    name, every = options.schedule_parts
    shape: Shape | None = None
    if name == "plateau":
        shape = plateau
    elif name == "step" and every:
        shape = Steps(every * steps_per_epoch)
    elif name == "cosine" and steps is None and planned_steps is not None:
        shape = Cosine(max(warmup, steps_per_epoch), planned_steps)  # it is planned after the first epoch
    elif name != "constant":
        if steps is None:
            raise UsageError(f"schedule={name} needs a number of epochs, not a time")
        if warmup >= steps:
            raise UsageError(
                f"warmup of {warmup} steps leaves nothing of the run's {steps} ({epochs} epochs of "
                f"{steps_per_epoch}); warm up for less, or train for more epochs"
            )
        shapes: dict[str, Shape] = {
            "cosine": Cosine(warmup, steps),
            "step": Steps(steps / 3),
            "onecycle": OneCycle(steps),
        }
        shape = shapes[name]
    if shape is None and not warmup:
        return options.learning_rate
    return Schedule(options.learning_rate, warmup=warmup, shape=shape)


def set_rate(optimizer: keras.Optimizer, rate: float) -> None:
    """Gives a restored optimizer with a constant learning rate this one; a schedule has it already."""
    with contextlib.suppress(TypeError):  # Keras' answer for a schedule
        getattr(optimizer, "inner_optimizer", optimizer).learning_rate = rate
