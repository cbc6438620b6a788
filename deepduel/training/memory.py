"""How much memory training takes, estimated from the networks' shapes, and how much the device has."""

import resource

import keras
import numpy as np
import tensorflow as tf

from deepduel.decoding import host_memory
from deepduel.reading import random_reader
from deepduel.training.task import Task
from deepduel.training.trainer import Duel


def estimate(duel: Duel, *, batch_size: int, size: tuple[int, int]) -> dict[str, int]:
    """Bytes by purpose, on one device. The runtime's own (about a gigabyte on a CPU) is not in it.

    Args:
      size: (height, width) of the batch's uint8 images.
    """
    tasks, micro = duel.tasks, duel.micro_batch
    weights = _bytes({id(v): v for task in tasks for v in task.model.saved_model.variables}.values())
    frozen = [task.model.frozen for task in tasks if not task.trainable and not task.borrows]
    weights += sum(_bytes(extractor.variables) for extractor in frozen)
    gradients = sum(2 * _bytes(task.trained_variables) for task in tasks)  # of a part, and their sum
    states = sum(_bytes(task.optimizer.variables) + _bytes(task.averages.variables) for task in tasks)
    activations = max(micro * (_activations(task) + task.size**2 * 3 * 4) for task in tasks)
    features = sum(2 * batch_size * _features(task) for task in tasks if not task.trainable)
    batch_bytes = batch_size * size[0] * size[1] * 3
    images = random_reader.batches_held(batch_bytes) * batch_bytes
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": states,
        "activations of a micro-batch": activations,
        "features of the batch": features,
        "uint8 images in flight": images,
    }


def device_bytes() -> tuple[int, str]:
    """(bytes that may be used, of what): the first GPU's, else what RAM is free."""
    if tf.config.list_physical_devices("GPU"):
        from tensorflow.python.client import device_lib  # no public name tells it

        found = device_lib.list_local_devices()
        return next(device.memory_limit for device in found if device.device_type == "GPU"), "GPU memory"
    return host_memory.available_bytes(), "free RAM"


def peak_bytes() -> int:
    """The most that this process has taken so far: of the GPU, else of RAM."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _bytes(variables) -> int:
    return sum(
        int(np.prod(variable.shape)) * np.dtype(str(variable.dtype)).itemsize for variable in variables
    )


def _activations(task: Task) -> int:
    """Per image: of a trained backbone every layer's output, kept for its gradient; else some at a time."""
    width = 4 if task.model.architecture.precision == "float32" else 2
    outputs = []
    for layer in task.model.extractor._flatten_layers(include_self=False):
        if not isinstance(layer, keras.Model) and layer._inbound_nodes:
            shapes = [tensor.shape[1:] for tensor in tf.nest.flatten(layer.output)]
            outputs.append(sum(width * int(np.prod(shape)) for shape in shapes))
    if not task.trainable:
        return 3 * max(outputs)
    return sum(outputs)


def _features(task: Task) -> int:
    return 4 * int(np.prod(task.model.extractor.output.shape[1:]))
