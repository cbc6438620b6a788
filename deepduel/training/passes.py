"""One pass of some rows through networks: part of the step's graph, or a function of its own for XLA.

XLA makes few kernels of a network's many operations, which GPUs gain from; on a CPU its convolutions run at
about a tenth of the speed of TensorFlow's. What is compiled has the shapes of a micro-batch, so a network is
compiled once; the slices, padding and sums that depend on the batch stay outside.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from deepduel.training import task_losses
from deepduel.training.task import Task

Tensors = dict[str, tf.Tensor]  # by task
Gradients = dict[str, list[tf.Tensor]]  # by task, in the order of its trained_variables


class Passes:
    """Runs the networks of a trainer.

    Attributes:
      compiled: whether XLA compiles them. To be set before a step is traced.
    """

    def __init__(self, *, compiled: bool = False):
        """Args:
        compiled: see the attribute.
        """
        self.compiled = compiled
        self._functions: dict[tuple[str, ...], Callable] = {}

    def features(self, task: Task, images: tf.Tensor) -> tf.Tensor:
        """Float32 [b, S, S, 3] -> features [b, …] in inference mode, of the task's extractor."""
        in_inference = functools.partial(task.model.extractor, training=False)
        extractor = in_inference if task.trainable else task.model.frozen
        return self._call(("features", task.name), extractor, images)

    def backward(
        self, tasks: Sequence[Task], inputs: tf.Tensor, masks: dict, targets: dict, weights: Tensors
    ) -> tuple[Tensors, Gradients]:
        """As `backward`; `masks`, `targets` and `weights` may be those of other tasks too."""
        names = [task.name for task in tasks]
        of_tasks = [{name: values[name] for name in names} for values in (masks, targets, weights)]
        return self._call(("backward", *names), functools.partial(backward, tasks), inputs, *of_tasks)

    def update(self, task: Task, gradients: Sequence[tf.Tensor], apply: Callable) -> None:
        """Calls `apply(gradients, variables)` of the task's optimizer."""
        variables = task.trained_variables
        self._call(("update", task.name), lambda *arrays: apply(arrays, variables), *gradients)

    def _call(self, key: tuple[str, ...], function: Callable, *inputs: Any) -> Any:
        if not self.compiled:
            return function(*inputs)
        if key not in self._functions:
            self._functions[key] = tf.function(function, jit_compile=True, autograph=False)
        return self._functions[key](*inputs)


def backward(
    tasks: Sequence[Task], inputs: tf.Tensor, masks: dict, targets: dict, weights: Tensors
) -> tuple[Tensors, Gradients]:
    """Logits and gradients of the scaled loss of tasks that share an extractor, each {task: …}.

    The optimizer of the extractor's owner, the first task, scales the sum of the losses; the gradients of the
    other heads, which compute in float32, are scaled back.

    The tape follows what depends on the trained variables and nothing else, so that of a backbone whose last
    layers are trained the first ones leave nothing in memory.

    Args:
      inputs: features [b, …] where the backbone is frozen, else images [b, S, S, 3].
      masks, targets: of these rows, by task; see `prepare`.
      weights: by task, the weight of the entire batch that losses are divided by.
    """
    owner, logits, loss = tasks[0], {}, 0.0
    values = {task.name: [variable.value for variable in task.trained_variables] for task in tasks}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        features = inputs
        if owner.trainable:
            features = owner.model.extractor(inputs, training=owner.trains_statistics)
        for task in tasks:
            name, weight = task.name, targets[task.name].weight
            logits[name] = _head(task.model.head, tf.cast(features, tf.float32), masks[name])
            losses = task_losses.losses(targets[name], logits[name])
            loss += tf.math.divide_no_nan(tf.reduce_sum(losses * weight), weights[name])
        scaled = owner.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    for task in tasks[1:]:
        scale = owner.optimizer.scale_loss(1.0)
        gradients[task.name] = [gradient / scale for gradient in gradients[task.name]]
    return logits, gradients


def _head(head: keras.Model, features: tf.Tensor, masks: list[tf.Tensor]) -> tf.Tensor:
    """The head in training, with the masks of `draw_masks`; its layers are a chain (see task_model)."""
    remaining = iter(masks)
    for layer in head.layers[1:]:  # the first is the input
        dropout = isinstance(layer, keras.layers.Dropout)
        features = features * next(remaining) if dropout else layer(features)
    return features
