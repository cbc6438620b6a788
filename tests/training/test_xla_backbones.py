"""Whether XLA has an operation for everything that the backbones compute, in inference and in training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.augment import PRESETS
from deepduel.networks import backbones, task_model
from deepduel.networks.architecture import Architecture
from deepduel.training import step
from deepduel.training.passes import Passes
from deepduel.training.task import Task
from deepduel.training.task_losses import Objective

SIZE, COUNT, CLASSES = 96, 2, ("a", "b", "c")  # 96 px: the least of some
PASSES = Passes(compiled=True)


def forward(task):
    """images -> features, compiled."""
    return tf.function(lambda images: PASSES.features(task, images), jit_compile=True, autograph=False)


def backward(task):
    """images -> (logits, gradients), compiled."""

    def function(images):
        masks = {task.name: step.draw_masks(task.model.head, COUNT)}
        labels, weight = tf.zeros(COUNT, tf.int32), tf.ones(COUNT)
        targets = {task.name: Objective().targets(labels, weight, None, len(CLASSES))}
        return PASSES.backward([task], images, masks, targets, {task.name: tf.reduce_sum(weight)})

    return tf.function(function, jit_compile=True, autograph=False)


def make(name, fine_tune):
    model = task_model.build("task", Architecture(name, "avg", SIZE, fine_tune=fine_tune), CLASSES)
    return Task("task", model, PRESETS["none"], keras.optimizers.SGD())


@pytest.mark.slow
@pytest.mark.scale
@pytest.mark.parametrize("name", backbones.names())
def test_xla_lowers_every_backbone(name):
    """To its own operations, whatever the device; nothing is left that only TensorFlow computes."""
    spec = tf.TensorSpec((COUNT, SIZE, SIZE, 3), tf.float32)
    for function in forward(make(name, "none")), backward(make(name, "all")):
        text = function.experimental_get_compiler_ir(spec)(stage="hlo")
        assert "HloModule" in text
        assert "custom-call" not in text


@pytest.mark.slow
@pytest.mark.scale
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnetv2b0", "vgg16", "xception"])
def test_folded_networks_have_the_values_of_tensorflow(name, precision):
    model = task_model.build("task", Architecture(name, "avg", SIZE, precision=precision), CLASSES)
    images = np.random.default_rng(0).uniform(0, 255, (COUNT, SIZE, SIZE, 3)).astype(np.float32)
    expected = model.frozen(images).numpy().astype(np.float32)
    compiled = tf.function(model.frozen, jit_compile=True)(images).numpy().astype(np.float32)
    tolerance = 1e-4 if precision == "float32" else 5e-2
    np.testing.assert_allclose(compiled, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
