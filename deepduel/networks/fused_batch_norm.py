"""Batch norm in training as one operation of TensorFlow's, where Keras 3 takes a dozen.

Keras' own layer computes mean, variance, scaling and shift apart, each a pass over memory that nothing fuses
unless XLA compiles the whole step. The layers stay Keras' own: only how they compute in training changes, for
the layers of one model, and nothing of it is saved.
"""

import types

import keras
import tensorflow as tf

from deepduel.networks import keras_graph


def fuse(model: keras.Model) -> int:
    """Lets the model's batch norms use the fused operation in training. Returns how many do.

    The same numbers up to rounding: outputs, gradients and moving statistics (with the batch's own variance,
    as Keras has it, and not the unbiased one that the operation gives). Layers that normalise another axis
    than the last of [B, h, w, C], or over several devices, stay as they are.
    """
    layers = [layer for layer in keras_graph.flat_layers(model) if _fits(layer)]
    for layer in layers:
        layer.call = types.MethodType(_call, layer)
    return len(layers)


def _fits(layer: keras.layers.Layer) -> bool:
    if type(layer) is not keras.layers.BatchNormalization or layer.synchronized:
        return False
    return len(layer.input.shape) == 4 and layer.axis in (-1, 3)


def _call(
    self: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: tf.Tensor | None = None,
) -> tf.Tensor:
    """`keras.layers.BatchNormalization.call`."""
    if not training or not self.trainable or mask is not None:
        return type(self).call(self, inputs, training=training, mask=mask)
    x = tf.cast(inputs, self.compute_dtype)
    channels = x.shape[-1]
    scale = self.gamma.value if self.scale else tf.ones(channels)
    offset = self.beta.value if self.center else tf.zeros(channels)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.cast(scale, tf.float32),
        offset=tf.cast(offset, tf.float32),
        mean=tf.zeros(0),
        variance=tf.zeros(0),
        epsilon=self.epsilon,
        is_training=True,
    )
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    variance *= tf.maximum(count - 1, 1) / tf.maximum(count, 1)
    for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
        moving.assign(moving.value * self.momentum + tf.cast(new, moving.dtype) * (1 - self.momentum))
    return outputs
