"""A task's optimizer."""

import keras

from deepduel.options import TaskOptions


def build(task: TaskOptions) -> keras.optimizers.Optimizer:
    """The optimizer of one task; it scales the loss where the backbone is trained in float16."""
    optimizer = keras.optimizers.Adam(task.learning_rate)
    if task.architecture.trainable and task.architecture.precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
