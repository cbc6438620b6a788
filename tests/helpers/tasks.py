"""Tasks with small networks, and what several tests of training do with them."""

import keras
import numpy as np

from deepduel.augment import PRESETS
from deepduel.augmentation.mixing import Mixing
from deepduel.networks import task_model
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer

FROZEN = Architecture("small_cnn", "avg,dropout:0.5,dense:8", 16)  # with batch norm
TRAINED = Architecture("small_cnn", "avg", 16, fine_tune="all")


def make(axis, split, architecture=FROZEN, augmentation="original", rate=0.01, seed=0, mixing=None) -> Task:
    """A task for one label axis of a split, with Adam."""
    model = task_model.build(axis, architecture, split.manifest.axes[axis], seed=seed)
    optimizer = keras.optimizers.Adam(rate)
    if architecture.trainable and architecture.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return Task(axis, model, PRESETS[augmentation], optimizer, mixing or Mixing())


def fit(tasks, split, *, steps=4, batch_size=50, micro_batch=16) -> MultiTaskTrainer:
    """Trains for a few steps."""
    trainer = compiled(*tasks, micro_batch=micro_batch)
    batches = pipeline.train_batches(split, pipeline.ReadOptions(batch_size), order.Position(3))
    trainer.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    return trainer


def compiled(*tasks, micro_batch=4) -> MultiTaskTrainer:
    """A compiled trainer."""
    trainer = MultiTaskTrainer(tasks, micro_batch=micro_batch)
    trainer.compile()
    return trainer


def weights(task) -> list[np.ndarray]:
    """Of extractor and head."""
    return [*task.model.extractor.get_weights(), *task.model.head.get_weights()]


def assert_same(one, other, **tolerance) -> None:
    """Compares two lists of arrays.

    Micro-batches and plain Keras add up the same products in another order, which differs from processor to
    processor: atol covers float32's rounding over a few steps, and is 0 where nothing may have been computed.
    """
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
