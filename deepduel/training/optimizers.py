"""Optimizers and learning-rate schedules, counted in updates of the weights.

The position in a schedule is the optimizer's own count of updates, which is part of a run's state: a
resumed run goes on at the very rate. A step that is skipped (see training) does not count.
"""

import math

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
_DECAYING = ("adamw", "muon")  # which take a number
_DECAY = 0.004  # Keras' default of these


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate of update 0, 1, …: linear warm-up, then constant or half a cosine.

    The first update of a warm-up of w has 1/w of the rate, not 0. With a cosine the rate reaches 0 with the
    last update of `steps`, and stays there.

    Args:
      rate: the highest.
      warmup: updates that it grows for.
      steps: updates that a cosine spans, in a variable where a run decides while it runs (0: not yet, and
        the rate is constant); None: no cosine.
      begin: update at which the cosine begins; None: at the end of the warm-up.
    """

    def __init__(
        self, rate: float, *, warmup: int, steps: int | tf.Variable | None, begin: int | None = None
    ):
        self._rate, self._warmup, self._steps = rate, warmup, steps
        self._begin = warmup if begin is None else begin

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rate = self._rate * tf.minimum(1.0, (step + 1) / max(self._warmup, 1))
        if self._steps is None:
            return rate
        steps = tf.cast(self._steps, tf.float32)
        done = tf.maximum(step - self._begin, 0.0) / tf.maximum(steps - self._begin, 1.0)
        falling = rate * 0.5 * (1 + tf.cos(math.pi * tf.minimum(done, 1.0)))
        return tf.where(steps > 0, falling, rate)

    def get_config(self):
        steps = self._steps if self._steps is None else int(self._steps)
        return {"rate": self._rate, "warmup": self._warmup, "steps": steps, "begin": self._begin}


def build(
    recipe: OptimizerOptions,
    *,
    steps_per_epoch: int,
    epochs: int | None,
    scales_loss: bool,
    precision: str = "float32",
    planned: tf.Variable | None = None,
) -> keras.Optimizer:
    """The optimizer of one task.

    Args:
      epochs: that a cosine spans. A run that goes on with more epochs goes on, from its update, on the
        longer curve. None: `planned` says for how many steps.
      scales_loss: wraps it in a LossScaleOptimizer: for backbones trained in float16.
      precision: of the network; in "mixed_bfloat16" muon computes in bfloat16 too.
      planned: steps of the run, where that is decided while it runs; 0: not yet.

    Raises:
      UsageError: the warm-up is as long as the run.
    """
    decay, decaying = recipe.weight_decay, recipe.optimizer in _DECAYING
    if decay is None:
        decay = _DECAY if decaying else 0
    rate = _rate(recipe, steps_per_epoch, epochs, planned)
    more = (
        {"compute_dtype": "bfloat16"} if (recipe.optimizer, precision) == ("muon", "mixed_bfloat16") else {}
    )
    optimizer = _MAKERS[recipe.optimizer](rate, weight_decay=decay or (0.0 if decaying else None), **more)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if scales_loss else optimizer


def _rate(recipe: OptimizerOptions, steps_per_epoch: int, epochs: int | None, planned: tf.Variable | None):
    warmup = recipe.warmup_steps(steps_per_epoch)
    if recipe.schedule == "constant" and not warmup:
        return recipe.learning_rate
    if recipe.schedule == "cosine" and epochs is None:
        begin = max(warmup, steps_per_epoch)  # only then there is a plan
        return Schedule(recipe.learning_rate, warmup=warmup, steps=planned, begin=begin)
    steps = steps_per_epoch * epochs if recipe.schedule == "cosine" else None
    if steps is not None and warmup >= steps:
        raise UsageError(
            f"warmup of {warmup} steps leaves nothing of the run's {steps} ({epochs} epochs of "
            f"{steps_per_epoch}); warm up for less, or train for more epochs"
        )
    return Schedule(recipe.learning_rate, warmup=warmup, steps=steps)
