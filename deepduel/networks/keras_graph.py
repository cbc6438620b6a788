"""The layers of a Keras model, and the graph of a functional one; alone in using private names of Keras.

Keras 3 has no public interface to the graph. If a version of Keras lacks one of the private names, `nodes`
warns and returns None, and its callers do without the graph.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

_PRIVATE = ("_nodes_by_depth", "_run_through_graph")


def flat_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """The model itself and all its layers, with the layers of models in the model."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flat_layers(layer)
        else:
            yield layer


def output_shapes(layer: keras.Layer) -> list[tuple[int | None, ...]]:
    """The shapes of a layer's outputs, batch axis included; [] if the layer was never called."""
    try:
        return [tuple(tensor.shape) for tensor in tf.nest.flatten(layer.output)]
    except (AttributeError, ValueError):
        return []


def nodes(model: keras.Model) -> list[Any] | None:
    """The layer calls in the graph of a functional model with one input and one output.

    Each has `operation`, `input_tensors` and `outputs`. None for any other model, and, with a warning, if
    this version of Keras lacks a private name that is needed.
    """
    functional = any(kind.__name__ == "Functional" for kind in type(model).__mro__)  # no public class
    if not functional or not len(model.inputs) == len(model.outputs) == 1:
        return None
    missing = [name for name in _PRIVATE if not hasattr(model, name)]
    if missing:
        warnings.warn(
            f"Keras {keras.__version__} has no {', '.join(missing)}: batch norms are not folded, "
            "which makes frozen networks slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return [node for level in model._nodes_by_depth.values() for node in level if not node.is_input]


def run(model: keras.Model, inputs: tf.Tensor, operation_fn: Callable[[Any], Callable]) -> tf.Tensor:
    """The model's output, with `operation_fn(layer)` called instead of each layer.

    Only for models of which `nodes` is not None.
    """
    outputs = model._run_through_graph(
        keras.ops.cast(inputs, model.inputs[0].dtype), operation_fn=operation_fn
    )
    return outputs[0] if isinstance(outputs, list | tuple) else outputs
