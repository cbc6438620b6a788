"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), for convolutions too.

The momentum of a hidden layer's kernel is brought close to an orthogonal matrix before it is subtracted from
the weights, so that all its directions are learnt alike: fewer steps for the same accuracy than AdamW. A
kernel [h, w, in, out] counts as the matrix [h * w * in, out]. Keras' own Muon leaves convolutions to AdamW,
and its scale changed between versions.
"""

from typing import Any

import keras
import tensorflow as tf

_SMALLEST = 32  # rows and columns of a matrix; below that orthogonalising has little effect
_MOMENTUM, _STEPS = 0.95, 5
_COEFFICIENTS = 3.4445, -4.7750, 2.0315  # the authors' quintic iteration
_SCALE = 0.2  # root mean square of an update, as AdamW's: "Muon is scalable", arXiv 2502.16982
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # Keras' AdamW


class Muon(keras.optimizers.Optimizer):
    """Orthogonalised momentum for the kernels of hidden layers, AdamW for all other variables.

    Learning rates and weight decays are those of AdamW. AdamW updates biases, norms, the layer of the logits,
    and kernels with fewer than 32 rows or columns, such as depthwise ones and the first of a network.

    Args:
      learning_rate: a number or a schedule.
      weight_decay: decoupled weight decay of all variables.
      compute_dtype: the dtype of the orthogonalisation, which takes about a sixth of the time of a small
        network's step; the authors run it in bfloat16.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        *,
        weight_decay: float | None = None,
        compute_dtype: str = "float32",
        name: str = "muon",
        **kwargs: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.compute_dtype = compute_dtype

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums = [self.add_variable_from_reference(variable, "momentum") for variable in variables]
        self._velocities = [
            None if is_hidden_kernel(variable) else self.add_variable_from_reference(variable, "velocity")
            for variable in variables
        ]

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        rate = tf.cast(learning_rate, variable.dtype)
        gradient = tf.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        if velocity is None:
            self._muon(gradient, variable, rate, momentum)
        else:
            self._adam(gradient, variable, rate, momentum, velocity)

    def _muon(
        self, gradient: tf.Tensor, variable: keras.Variable, rate: tf.Tensor, momentum: keras.Variable
    ) -> None:
        self.assign(momentum, momentum * _MOMENTUM + gradient)
        rows, columns = _matrix(variable.shape)
        ahead = tf.reshape(gradient + momentum * _MOMENTUM, (rows, columns))  # Nesterov
        update = tf.cast(orthogonalised(tf.cast(ahead, self.compute_dtype)), variable.dtype)
        scale = _SCALE * max(rows, columns) ** 0.5
        self.assign_sub(variable, tf.reshape(update, variable.shape) * (scale * rate))

    def _adam(
        self,
        gradient: tf.Tensor,
        variable: keras.Variable,
        rate: tf.Tensor,
        momentum: keras.Variable,
        velocity: keras.Variable,
    ) -> None:
        step = tf.cast(self.iterations + 1, variable.dtype)
        self.assign_add(momentum, (gradient - momentum) * (1 - _BETA_1))
        self.assign_add(velocity, (tf.square(gradient) - velocity) * (1 - _BETA_2))
        rate *= tf.sqrt(1 - tf.pow(_BETA_2, step)) / (1 - tf.pow(_BETA_1, step))
        self.assign_sub(variable, momentum * rate / (tf.sqrt(velocity) + _EPSILON))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"compute_dtype": self.compute_dtype}


def is_hidden_kernel(variable: keras.Variable) -> bool:
    """Whether Muon updates the variable, and not AdamW."""
    if len(variable.shape) not in (2, 4) or "logits" in variable.path:
        return False
    return min(_matrix(variable.shape)) >= _SMALLEST


def orthogonalised(matrix: tf.Tensor) -> tf.Tensor:
    """A matrix with the same singular vectors, and singular values of 0.7 to 1.2, by Newton-Schulz."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = tf.transpose(matrix) if tall else matrix
    x /= tf.cast(tf.norm(tf.cast(x, tf.float32)) + _EPSILON, x.dtype)
    for _ in range(_STEPS):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
    return tf.transpose(x) if tall else x


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a kernel [..., out] as a matrix."""
    rows = 1
    for extent in shape[:-1]:
        rows *= extent
    return rows, shape[-1]
