"""Running averages of weights, which often validate better than the weights of the last step."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class Averages:
    """Exponential moving averages of a task's trained weights.

    After each update every average moves by 1 - d towards its weight, with
    d = min(decay, (1 + updates) / (10 + updates)), so that the first weights do not dominate early averages
    (the rule of tf.train.ExponentialMovingAverage with num_updates).

    Attributes:
      variables: the averages, part of a run's state; empty for a decay of 0.
    """

    def __init__(self, decay: float, weights: list[keras.Variable]):
        self._decay = decay
        self._weights = weights
        self.variables = [
            keras.Variable(weight.numpy(), trainable=False, name="average") for weight in weights if decay
        ]

    def update(self, updates: tf.Tensor) -> None:
        """Moves the averages after an update of the weights; `updates` counts this one too."""
        if not self.variables:
            return
        count = tf.cast(updates, tf.float32)
        decay = tf.minimum(self._decay, (1 + count) / (10 + count))
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign(weight + decay * (average - weight))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """A block within which the weights are the averages; afterwards they are restored bit for bit."""
        saved = [weight.numpy() for weight in self._weights] if self.variables else []
        for weight, average in zip(self._weights, self.variables, strict=False):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in zip(self._weights, saved, strict=False):
                weight.assign(value)
