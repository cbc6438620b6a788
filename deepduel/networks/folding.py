"""A frozen network with its batch norms folded into the convolutions before them, for computing only.

    convolution, kernel W, bias b     y = W * x + b
    batch norm in inference mode      z = s (y - mean) + beta,  s = gamma / sqrt(variance + epsilon)
    both, as one convolution          z = (s W) * x + s (b - mean) + beta

Keras computes the batch norm by operations of its own, each a pass over a feature map, and in mixed
precision in float32; and between convolution and activation it keeps TensorFlow from making one operation
of the two. The network itself stays as it is: it is what is saved, and what can be trained further.
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
    """`model(inputs, training=False)`, up to rounding, by the weights that the model has when this is made.

    A batch norm is folded into a Conv2D, DepthwiseConv2D, SeparableConv2D or Dense if that is all that its
    output goes to; within models in the model too. Any other layer runs as it is, by the model's own weights.

    Attributes:
      variables: the new weights, computed in float64, kept in the layers' compute dtype beside the old ones.
    """

    def __init__(self, model: keras.Model):
        """Args:
        model: a functional one with one input and one output; any other is called as it is.
        """
        self.variables: list[keras.Variable] = []
        self._model = model
        self._instead: dict[int, Callable] = {}
        nodes = keras_graph.nodes(model)
        self._has_graph = nodes is not None
        if nodes is None:
            return
        with tf.init_scope():  # where weights have values, wherever this is called
            for layer, norm, fenced in _pairs(model, nodes):
                self._put(layer, _Affine(layer, norm))
                self._instead[id(norm)] = _fence if fenced else _same
            for part in model.layers:
                if isinstance(part, keras.Model):
                    self._put(part, Folded(part))

    def _put(self, layer: keras.Layer, instead: "Folded | _Affine") -> None:
        self._instead[id(layer)] = instead
        self.variables += instead.variables

    def __call__(self, inputs: tf.Tensor, **mode: Any) -> tf.Tensor:
        if not self._has_graph:
            return self._model(inputs, training=False)
        return keras_graph.run(
            self._model, inputs, lambda layer: self._instead.get(id(layer)) or _in_inference(layer)
        )


def _pairs(
    model: keras.Model, nodes: list[Any]
) -> Iterator[tuple[keras.Layer, layers.BatchNormalization, bool]]:
    """Layers, the batch norms to fold into them, and whether a `_fence` must follow; none is used twice."""
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
        if once and type(norm) is layers.BatchNormalization and _takes(layer, norm):
            yield layer, norm, _forks_after_sum(node, users)


def _takes(layer: keras.Operation, norm: layers.BatchNormalization) -> bool:
    """Whether the layer is affine, and the batch norm's axis that of its output channels."""
    if type(layer) not in _OPERATIONS or layer.activation is not keras.activations.linear:
        return False
    if layer.compute_dtype != norm.compute_dtype or getattr(layer, "quantization_mode", None):
        return False
    rank = len(layer.output.shape)
    return norm.axis % rank == (1 if _channels_first(layer) else rank - 1)


def _forks_after_sum(node: Any, users: dict[int, list]) -> bool:
    """Whether the output is added to another, and that sum goes to an activation and elsewhere too."""
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
    """The last one is that of the output channels."""
    if isinstance(layer, layers.SeparableConv2D):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [layer.kernel]


def _steps(layer: keras.Layer) -> dict:
    return {name: getattr(layer, name) for name in ("strides", "padding", "data_format", "dilation_rate")}


_OPERATIONS: dict[type, Callable] = {
    layers.Conv2D: lambda layer, inputs, kernel: ops.conv(inputs, kernel, **_steps(layer)),
    layers.DepthwiseConv2D: lambda layer, inputs, kernel: ops.depthwise_conv(inputs, kernel, **_steps(layer)),
    layers.SeparableConv2D: lambda layer, inputs, depthwise, pointwise: ops.separable_conv(
        inputs, depthwise, pointwise, **_steps(layer)
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
    """The same, by an operation that costs nothing and that TensorFlow does not look past.

    Where a convolution's output is added to another, and the sum is both activated and passed on, as between
    Xception's blocks, its graph optimizer fails as a whole ("remapper failed: … missing node", TensorFlow
    2.21), and convolutions and activations stay apart everywhere.
    """
    return tf.ensure_shape(inputs, inputs.shape)


def _in_inference(layer: keras.Operation) -> Callable:
    """The layer with training=False if it knows of that, whatever the model calls it with."""
    if isinstance(layer, keras.Layer) and "training" in inspect.signature(layer.call).parameters:
        return lambda *args, **mode: layer(*args, **mode | {"training": False})
    return layer
