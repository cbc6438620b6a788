"""How much memory training takes, estimated from the shapes of the networks."""

import math
from collections.abc import Iterable

import keras
import numpy as np

from deepduel.networks import keras_graph
from deepduel.reading import random_reader
from deepduel.training import devices, transfer
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer


def estimate(
    trainer: MultiTaskTrainer, *, batch_size: int, size: tuple[int, int], cached: bool = False
) -> dict[str, int]:
    """{purpose: bytes} on one device, without the runtime's own memory (about a gigabyte on a CPU).

    Args:
      batch_size: images per update.
      size: (height, width) of the batch's uint8 images, pixels.
      cached: whether they come from a cache of decoded pixels, whose own memory is not counted.
    """
    tasks, micro = trainer.tasks, trainer.micro_batch
    weights = _bytes({id(v): v for task in tasks for v in task.model.saved_model.variables}.values())
    frozen = [task.model.frozen for task in tasks if not task.trainable and not task.shares_extractor]
    weights += sum(_bytes(extractor.variables) for extractor in frozen)
    gradients = sum(2 * _bytes(task.trained_variables) for task in tasks)  # of a micro-batch, and their sum
    states = sum(_bytes(task.optimizer.variables) + _bytes(task.averages.variables) for task in tasks)
    activations = max(micro * (_activation_bytes(task) + task.size**2 * 3 * 4) for task in tasks)
    features = sum(2 * batch_size * _feature_bytes(task) for task in tasks if not task.trainable)
    batch_bytes = batch_size * size[0] * size[1] * 3
    on_gpu = devices.only_gpu(trainer.strategy) is not None
    held = transfer.AHEAD + 2 if on_gpu else random_reader.batches_held(batch_bytes, cached=cached)
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": states,
        "activations of a micro-batch": activations,
        "features of the batch": features,
        "uint8 images in flight": held * batch_bytes,
    }


def _bytes(variables: Iterable[keras.Variable]) -> int:
    return sum(
        int(np.prod(variable.shape)) * np.dtype(str(variable.dtype)).itemsize for variable in variables
    )


def _activation_bytes(task: Task) -> int:
    """Per image: a trained backbone keeps every layer's output for its gradient, a frozen one a few."""
    width = 4 if task.model.architecture.precision == "float32" else 2
    outputs = []
    for layer in keras_graph.flat_layers(task.model.extractor):
        shapes = [] if isinstance(layer, keras.Model) else keras_graph.output_shapes(layer)
        if shapes:
            outputs.append(sum(width * math.prod(side or 1 for side in shape[1:]) for shape in shapes))
    if not task.trainable:
        return 3 * max(outputs)
    return sum(outputs)


def _feature_bytes(task: Task) -> int:
    """Per image."""
    return 4 * int(np.prod(task.model.extractor.output.shape[1:]))
