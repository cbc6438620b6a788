"""Optimizers and learning-rate schedules, counted in updates of the weights.

The position in a schedule is the optimizer's own count of updates, which is part of a run's state: a
resumed run goes on at the very rate. A step that is skipped (see training) does not count.
"""

import dataclasses
import math
import re

import keras
import tensorflow as tf

from tfrecords_tools.cli import UsageError

_MAKERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "sgd": lambda rate, **options: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **options),
}
_ADAMW_DECAY = 0.004  # Keras' default


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a task's weights are updated.

    Attributes:
      optimizer: "adam", "adamw", "nadam", "rmsprop", "lion" or "sgd" (Nesterov momentum 0.9).
      learning_rate: the highest of the schedule.
      weight_decay: decoupled, times the learning rate, on kernels only (not on biases and norms);
        None: 0.004 for adamw, else 0.
      schedule: "constant", or "cosine": down to 0 over all epochs (arXiv 1608.03983, one period).
      warmup: the rate grows linearly for so long: "500steps", or a share of an epoch, "0.5epochs"; "0".
      clip_norm: the gradients are shortened together to this norm if they are longer, by the training step;
        0: never.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.001
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: str = "0"
    clip_norm: float = 0.0

    def __post_init__(self):
        if self.optimizer not in _MAKERS:
            raise UsageError(f"optimizer must be one of {', '.join(_MAKERS)}, got {self.optimizer!r}")
        if self.schedule not in ("constant", "cosine"):
            raise UsageError(f"schedule must be constant or cosine, got {self.schedule!r}")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be above 0, got {self.learning_rate}")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name} must be a number from 0 on, got {value}")
        if not re.fullmatch(r"0|\d+steps|\d+(\.\d+)?epochs", self.warmup):
            raise UsageError(f"warmup must be like 0, 500steps or 0.5epochs, got {self.warmup!r}")

    def warmup_steps(self, steps_per_epoch: int) -> int:
        number, unit = re.fullmatch(r"([\d.]+)(\w*)", self.warmup).groups()
        return round(float(number) * (steps_per_epoch if unit == "epochs" else 1))


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


def build(recipe: Recipe, *, steps_per_epoch: int, epochs: int, scales_loss: bool) -> keras.Optimizer:
    """The optimizer of one task.

    Args:
      epochs: that a cosine spans. A run that goes on with more epochs goes on, from its update, on the
        longer curve.
      scales_loss: wraps it in a LossScaleOptimizer: for backbones trained in float16.
    """
    decay = recipe.weight_decay
    if decay is None:
        decay = _ADAMW_DECAY if recipe.optimizer == "adamw" else 0
    optimizer = _MAKERS[recipe.optimizer](
        _rate(recipe, steps_per_epoch, epochs),
        weight_decay=decay or (0.0 if recipe.optimizer == "adamw" else None),  # which takes no None
    )
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
