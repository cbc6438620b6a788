"""Optimizers and learning-rate schedules, counted in updates of the weights.

The position in a schedule is the optimizer's own count of updates, which is part of a run's state: a
resumed run continues at exactly the same rate. A step that is skipped (see updates) does not count.
"""

import contextlib
import math
from typing import Any

import keras
import tensorflow as tf

from deepduel.training.muon import Muon
from deepduel.training.optimizer_options import OptimizerOptions
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


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate of update 0, 1, …: linear warm-up, then constant or half a cosine.

    The first update of a warm-up of w has 1/w of the rate, not 0. With a cosine the rate reaches 0 with the
    last update of `steps`, and stays there.

    Args:
      rate: peak learning rate.
      warmup: how many updates the rate grows for.
      steps: the update at which a cosine ends; a variable where this is decided during the run (0 as long as
        it is not, and the rate is constant); None for no cosine.
      begin: update at which the cosine begins; None for the end of the warm-up.
    """

    def __init__(
        self, rate: float, *, warmup: int, steps: int | tf.Variable | None, begin: int | None = None
    ):
        self._rate, self._warmup, self._steps = rate, warmup, steps
        self._begin = warmup if begin is None else begin

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = self._rate * tf.minimum(1.0, (step + 1) / max(self._warmup, 1))
        if self._steps is None:
            return rate
        steps = tf.cast(self._steps, tf.float32)
        done = tf.maximum(step - self._begin, 0.0) / tf.maximum(steps - self._begin, 1.0)
        falling = rate * 0.5 * (1 + tf.cos(math.pi * tf.minimum(done, 1.0)))
        return tf.where(steps > 0, falling, rate)

    def get_config(self) -> dict[str, Any]:
        steps = self._steps if self._steps is None else int(self._steps)
        return {"rate": self._rate, "warmup": self._warmup, "steps": steps, "begin": self._begin}


def build(
    options: OptimizerOptions,
    *,
    steps_per_epoch: int,
    epochs: int | None,
    scales_loss: bool,
    precision: str = "float32",
    planned_steps: tf.Variable | None = None,
) -> keras.Optimizer:
    """The optimizer of one task.

    Args:
      steps_per_epoch: updates per epoch.
      epochs: how many a cosine spans. A run that is resumed with more epochs continues, from its update on,
        on the longer curve. None where `planned_steps` says how many steps it spans.
      scales_loss: whether to wrap it in a LossScaleOptimizer, for backbones trained in float16.
      precision: the network's; with "mixed_bfloat16" muon computes in bfloat16 too.
      planned_steps: steps of the run, where that is decided while it runs; 0 as long as it is not.

    Raises:
      UsageError: the warm-up is as long as the run.
    """
    decays_by_default = options.optimizer in _DECAYING
    decay = options.weight_decay
    if decay is None:
        decay = _DECAY if decays_by_default else 0
    rate = _rate(options, steps_per_epoch, epochs, planned_steps)
    in_bfloat16 = options.optimizer == "muon" and precision == "mixed_bfloat16"
    dtype = {"compute_dtype": "bfloat16"} if in_bfloat16 else {}
    optimizer = _MAKERS[options.optimizer](
        rate, weight_decay=decay or (0.0 if decays_by_default else None), **dtype
    )
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if scales_loss else optimizer


def _rate(
    options: OptimizerOptions, steps_per_epoch: int, epochs: int | None, planned_steps: tf.Variable | None
) -> float | Schedule:
    warmup = options.warmup_steps(steps_per_epoch)
    if options.schedule == "constant":
        return Schedule(options.learning_rate, warmup=warmup, steps=None) if warmup else options.learning_rate
    if epochs is None:
        begin = max(warmup, steps_per_epoch)  # the length is planned after the first epoch
        return Schedule(options.learning_rate, warmup=warmup, steps=planned_steps, begin=begin)
    steps = steps_per_epoch * epochs
    if warmup >= steps:
        raise UsageError(
            f"warmup of {warmup} steps leaves nothing of the run's {steps} ({epochs} epochs of "
            f"{steps_per_epoch}); warm up for less, or train for more epochs"
        )
    return Schedule(options.learning_rate, warmup=warmup, steps=steps)


def set_rate(optimizer: keras.Optimizer, rate: float) -> None:
    """Gives a restored optimizer with a constant learning rate this one; a schedule has it already."""
    with contextlib.suppress(TypeError):  # Keras' answer for a schedule
        getattr(optimizer, "inner_optimizer", optimizer).learning_rate = rate
