"""Learning-rate schedules, as functions of the number of updates.

    rate of update n  =  peak rate  *  warm-up(n)  *  shape(n)

The position is the optimizer's own count of updates, which is part of a run's state: a resumed run continues
at exactly the same rate, and a step that is skipped (see updates) does not count. A shape whose length is
that of the run continues, when the run becomes longer, from its update on, on the longer curve.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

STEP_FACTOR = 0.1
PLATEAU_FACTOR = 0.2
_RISING = 0.3  # share of a cycle
_FIRST, _LAST = 1 / 25, 1 / 250_000  # of the peak rate: fast.ai's and PyTorch's defaults

Shape = Callable[[tf.Tensor], tf.Tensor]  # number of the update, float32 -> factor of the peak rate


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate of update 0, 1, …: linear warm-up, times a shape.

    The first update of a warm-up of w has 1/w of the rate, not 0.

    Args:
      rate: peak learning rate.
      warmup: how many updates the rate grows for.
      shape: update -> factor; None for a constant rate.

    Example:
      keras.optimizers.Adam(Schedule(0.001, warmup=100, shape=Cosine(begin=100, steps=1000)))
    """

    def __init__(self, rate: float, *, warmup: int = 0, shape: Shape | None = None):
        self.rate, self.warmup, self.shape = rate, warmup, shape

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = self.rate * tf.minimum(1.0, (step + 1) / max(self.warmup, 1))
        return rate if self.shape is None else rate * self.shape(step)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "warmup": self.warmup, "shape": self.shape}


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to 0 (arXiv 1608.03983, one period); 0 with the last update and after it.

    Attributes:
      begin: the update at which it begins.
      steps: the update at which it ends; a variable where this is decided during the run, 0 as long as it is
        not, and the factor is 1.
    """

    begin: int
    steps: int | tf.Variable

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        steps = tf.cast(self.steps, tf.float32)
        done = tf.maximum(step - self.begin, 0.0) / tf.maximum(steps - self.begin, 1.0)
        return tf.where(steps > 0, 0.5 * (1 + tf.cos(math.pi * tf.minimum(done, 1.0))), 1.0)


@dataclasses.dataclass(frozen=True)
class Steps:
    """A tenth of the factor after each `every` updates."""

    every: float

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return STEP_FACTOR ** tf.floor(step / self.every)


@dataclasses.dataclass(frozen=True)
class OneCycle:
    """From 1/25 up to 1 in the first 30 % of the updates, then down to 1/250,000, each half a cosine.

    The policy of arXiv 1708.07120 in the form of fast.ai and of PyTorch's OneCycleLR.
    """

    steps: int

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        top = max(_RISING * self.steps - 1, 1e-6)
        last = max(self.steps - 1 - top, 1e-6)
        rising = _half_cosine(step / top, _FIRST, 1.0)
        return tf.where(step <= top, rising, _half_cosine((step - top) / last, 1.0, _LAST))


@dataclasses.dataclass(frozen=True)
class Plateau:
    """A fifth of the factor after each `patience` epochs in which the task did not improve.

    Attributes:
      patience: epochs.
      factor: float32 variable, the factor of now. It follows from the run's history, see runs.plateaus.
    """

    patience: int
    factor: tf.Variable

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(self.factor)


def _half_cosine(done: tf.Tensor, start: float, end: float) -> tf.Tensor:
    return end + (start - end) * 0.5 * (1 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0)))
