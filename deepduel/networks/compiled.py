"""Functions compiled for tensors of one signature, whose graphs are freed with them; alone in using private
names of TensorFlow.

TensorFlow registers the gradient of each `tf.custom_gradient` that it traces (there is one in each update by
a Keras optimizer, and one per swish activation) under a name of its own, for the life of the process, and
with it the graph: some 20 MB for each training of a small network. The name is looked up only while gradients
are traced, so that it can go once the trace is complete.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops

_NAME = "_gradient_op_type"  # attribute of an operation with a gradient of its own: the name it has there


def compiled(function: Callable, *signature: Any) -> Callable:
    """`function` as a graph, traced at its first call. No gradients can be taken through it from outside.

    Args:
      function: tensors -> nest of tensors.
      signature: the nest of tf.TensorSpec of each argument.

    Example:
      >>> double = compiled(lambda numbers: 2 * numbers, tf.TensorSpec((None,), tf.int32))
      >>> double([1, 2]).numpy().tolist()
      [2, 4]
    """
    graph_function = tf.function(function, input_signature=signature, autograph=False)
    traced = False

    def call(*arguments: Any) -> Any:
        nonlocal traced
        if not traced:
            _forget_gradients(graph_function.get_concrete_function().graph)
            traced = True
        return graph_function(*arguments)

    return call


def _forget_gradients(graph: tf.Graph) -> None:
    """Takes the names of the graph's own gradients out of TensorFlow's registry.

    A TensorFlow whose registry is no dictionary keeps them, and the graph.
    """
    registry = getattr(ops.gradient_registry, "_registry", None)
    if not isinstance(registry, dict):
        return
    definition = graph.as_graph_def()
    nodes = [definition.node, *(function.node_def for function in definition.library.function)]
    for node in (node for part in nodes for node in part):
        if _NAME in node.attr:
            registry.pop(node.attr[_NAME].s.decode(), None)
