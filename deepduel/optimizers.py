"""Optimizers and learning-rate schedules, counted in updates of the weights.

The position in a schedule is the optimizer's own count of updates, which is part of a run's state: a
resumed run goes on at the very rate. A step that is skipped (see training) does not count.
"""

import math

import keras
import tensorflow as tf

from deepduel.muon import Muon
from deepduel.recipe import Recipe
from tfrecords_tools.cli import UsageError

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
    """

    def __init__(self, rate: float, *, warmup: int, steps: int | None):
        self._rate, self._warmup, self._steps = rate, warmup, steps

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rate = self._rate * tf.minimum(1.0, (step + 1) / max(self._warmup, 1))
        if self._steps is None:
            return rate
        done = tf.maximum(step - self._warmup, 0.0) / max(self._steps - self._warmup, 1)
        return rate * 0.5 * (1 + tf.cos(math.pi * tf.minimum(done, 1.0)))

    def get_config(self):
        return {"rate": self._rate, "warmup": self._warmup, "steps": self._steps}


def build(
    recipe: Recipe, *, steps_per_epoch: int, epochs: int, scales_loss: bool, precision: str = "float32"
) -> keras.Optimizer:
    """The optimizer of one task.

    Args:
      epochs: that a cosine spans. A run that goes on with more epochs goes on, from its update, on the
        longer curve.
      scales_loss: wraps it in a LossScaleOptimizer: for backbones trained in float16.
      precision: of the network; in "mixed_bfloat16" muon computes in bfloat16 too.

    Raises:
      UsageError: the warm-up is as long as the run.
    """
    decay, decaying = recipe.weight_decay, recipe.optimizer in _DECAYING
    if decay is None:
        decay = _DECAY if decaying else 0
    rate = _rate(recipe, steps_per_epoch, epochs)
    more = (
        {"compute_dtype": "bfloat16"} if (recipe.optimizer, precision) == ("muon", "mixed_bfloat16") else {}
    )
    optimizer = _MAKERS[recipe.optimizer](rate, weight_decay=decay or (0.0 if decaying else None), **more)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return keras.optimizers.LossScaleOptimizer(optimizer) if scales_loss else optimizer


def _rate(recipe: Recipe, steps_per_epoch: int, epochs: int):
    warmup = recipe.warmup_steps(steps_per_epoch)
    if recipe.schedule == "constant" and not warmup:
        return recipe.learning_rate
    steps = steps_per_epoch * epochs if recipe.schedule == "cosine" else None
    if steps is not None and warmup >= steps:
        raise UsageError(
            f"warmup of {warmup} steps leaves nothing of the run's {steps} ({epochs} epochs of "
            f"{steps_per_epoch}); warm up for less, or train for more epochs"
        )
    return Schedule(recipe.learning_rate, warmup=warmup, steps=steps)
