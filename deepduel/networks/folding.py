"""A frozen network with its batch norms folded into the convolutions before them, for inference.

    convolution, kernel W, bias b     y = W * x + b
    batch norm in inference mode      z = s (y - mean) + beta,  s = gamma / sqrt(variance + epsilon)
    both, as one convolution          z = (s W) * x + s (b - mean) + beta

Keras computes a batch norm by several operations, each a pass over the feature map, in float32 even in mixed
precision; and a batch norm between convolution and activation keeps TensorFlow from fusing these two. The
network itself is left unchanged, so that it can be saved and trained further.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from deepduel.networks import keras_graph


class Folded:
    """Computes `model(inputs, training=False)`, up to rounding, with the weights at construction.

    A batch norm is folded into the Conv2D, DepthwiseConv2D, SeparableConv2D or Dense before it if nothing
    else uses that layer's output, within models in the model too. All other layers run unchanged, with the
    model's own weights.

    Attributes:
      variables: the folded weights, computed in float64 and kept in the layers' compute dtype, beside the
        model's own.
    """

    def __init__(self, model: keras.Model):
        """Args:
        model: a functional model with one input and one output; any other runs unfolded.
        """
        self.variables: list[keras.Variable] = []
        self._model = model
        self._replacements: dict[int, Callable] = {}
        nodes = keras_graph.nodes(model)
        self._has_graph = nodes is not None
        if nodes is None:
            return
        with tf.init_scope():  # eager, so that the weights have values
            for layer, norm, fenced in _pairs(model, nodes):
                self._replace(layer, _Affine(layer, norm))
                self._replacements[id(norm)] = _fence if fenced else _same
            for part in model.layers:
                if isinstance(part, keras.Model):
                    self._replace(part, Folded(part))

    def _replace(self, layer: keras.Layer, replacement: "Folded | _Affine") -> None:
        self._replacements[id(layer)] = replacement
        self.variables += replacement.variables

    def __call__(self, inputs: tf.Tensor, **mode: Any) -> tf.Tensor:
        if not self._has_graph:
            return self._model(inputs, training=False)
        return keras_graph.run(
            self._model, inputs, lambda layer: self._replacements.get(id(layer)) or _in_inference(layer)
        )


def _pairs(
    model: keras.Model, nodes: list[Any]
) -> Iterator[tuple[keras.Layer, layers.BatchNormalization, bool]]:
    """The layers to fold into: (layer, its batch norm, whether a `_fence` must follow).

    Layers and batch norms that are called more than once are left out.
    """
    calls = [id(node.operation) for node in nodes]
    makers = {id(tensor): node.operation for node in nodes for tensor in node.outputs}
    users: dict[int, list] = {id(tensor): [None] for tensor in model.outputs}
    for node in nodes:
        for tensor in node.input_tensors:
            users.setdefault(id(tensor), []).append(node)
    for node in nodes:
        norm, source = node.operation, id(node.input_tensors[0])
        layer = makers.get(source)
        once = len(users[source]) == calls.count(id(layer)) == calls.count(id(norm)) == 1
        if once and type(norm) is layers.BatchNormalization and _can_fold(layer, norm):
            yield layer, norm, _forks_after_sum(node, users)


def _can_fold(layer: keras.Operation, norm: layers.BatchNormalization) -> bool:
    """Whether the layer is affine, and the batch norm normalises its output channels."""
    if type(layer) not in _OPERATIONS or layer.activation is not keras.activations.linear:
        return False
    if layer.compute_dtype != norm.compute_dtype or getattr(layer, "quantization_mode", None):
        return False
    rank = len(layer.output.shape)
    return norm.axis % rank == (1 if _channels_first(layer) else rank - 1)


def _forks_after_sum(node: Any, users: dict[int, list]) -> bool:
    """Whether the output is added to another, and an activation and others use the sum."""
    used_by = users.get(id(node.outputs[0]), [])
    if len(used_by) != 1 or used_by[0] is None or not isinstance(used_by[0].operation, layers.Add):
        return False
    further = [user.operation for user in users.get(id(used_by[0].outputs[0]), []) if user]
    return len(further) > 1 and any(isinstance(user, layers.Activation | layers.ReLU) for user in further)


class _Affine:
    """A layer and the batch norm after it, as one operation."""

    def __init__(self, layer: keras.Layer, norm: layers.BatchNormalization):
        scale = 1 / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
        if norm.scale:
            scale *= _float64(norm.gamma)
        bias = scale * ((_float64(layer.bias) if layer.use_bias else 0) - _float64(norm.moving_mean))
        if norm.center:
            bias += _float64(norm.beta)
        *arrays, last = [_float64(kernel) for kernel in _kernels(layer)]
        depthwise = isinstance(layer, layers.DepthwiseConv2D)  # its outputs are the last two axes
        arrays.append(last * (scale.reshape(last.shape[-2:]) if depthwise else scale))
        self._layer = layer
        arrays.append(bias.reshape(1, -1, 1, 1) if _channels_first(layer) else bias)
        self.variables = [self._variable(values) for values in arrays]

    def _variable(self, values: np.ndarray) -> keras.Variable:
        dtype = self._layer.compute_dtype
        return keras.Variable(values.astype(np.float32), trainable=False, dtype=dtype, name="folded")

    def __call__(self, inputs: tf.Tensor, **mode: Any) -> tf.Tensor:
        inputs = ops.cast(inputs, self._layer.compute_dtype)
        *kernels, bias = self.variables
        return ops.add(_OPERATIONS[type(self._layer)](self._layer, inputs, *kernels), bias)


def _kernels(layer: keras.Layer) -> list:
    """The layer's kernels; the last one has the axis of the output channels."""
    if isinstance(layer, layers.SeparableConv2D):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [layer.kernel]


def _convolution_options(layer: keras.Layer) -> dict:
    return {name: getattr(layer, name) for name in ("strides", "padding", "data_format", "dilation_rate")}


_OPERATIONS: dict[type, Callable] = {
    layers.Conv2D: lambda layer, inputs, kernel: ops.conv(inputs, kernel, **_convolution_options(layer)),
    layers.DepthwiseConv2D: lambda layer, inputs, kernel: ops.depthwise_conv(
        inputs, kernel, **_convolution_options(layer)
    ),
    layers.SeparableConv2D: lambda layer, inputs, depthwise, pointwise: ops.separable_conv(
        inputs, depthwise, pointwise, **_convolution_options(layer)
    ),
    layers.Dense: lambda layer, inputs, kernel: ops.matmul(inputs, kernel),
}


def _channels_first(layer: keras.Layer) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


def _float64(weight: keras.Variable) -> np.ndarray:
    return ops.convert_to_tensor(weight).numpy().astype(np.float64)


def _same(inputs: tf.Tensor, **mode: Any) -> tf.Tensor:
    return inputs


def _fence(inputs: tf.Tensor, **mode: Any) -> tf.Tensor:
    """The identity, as an operation without cost that TensorFlow's graph optimizer does not look past.

    If a convolution's output is added to another, and the sum is both activated and passed on, as between
    Xception's blocks, the graph optimizer fails as a whole ("remapper failed: … missing node", TensorFlow
    2.21), and no convolution is fused with its activation.
    """
    return tf.ensure_shape(inputs, inputs.shape)


def _in_inference(layer: keras.Operation) -> Callable:
    """The layer with training=False, if it has that argument, whatever the model calls it with."""
    if isinstance(layer, keras.Layer) and "training" in inspect.signature(layer.call).parameters:
        return lambda *args, **mode: layer(*args, **mode | {"training": False})
    return layer
