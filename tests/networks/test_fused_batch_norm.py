"""Batch norm as one operation: Keras' own layer is what it must equal."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.networks import fused_batch_norm, keras_graph, task_model
from deepduel.networks.architecture import Architecture

pytestmark = pytest.mark.numeric

TOLERANCE = {"float32": 2e-6, "mixed_bfloat16": 4e-2, "mixed_float16": 4e-3}


def _network(policy: str = "float32", **options) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 5, 3))
    x = keras.layers.Conv2D(8, 3, dtype=policy)(inputs)
    norm = keras.layers.BatchNormalization(momentum=0.7, dtype=policy, **options)
    return keras.Model(inputs, norm(x))


def _trained_once(model: keras.Model, images: np.ndarray):
    """Outputs, gradients and moving statistics of one pass in training."""
    with tf.GradientTape() as tape:
        outputs = tf.cast(model(images, training=True), tf.float32)
        loss = tf.reduce_sum(
            outputs * tf.reshape(tf.sin(tf.range(tf.size(outputs), dtype=tf.float32)), outputs.shape)
        )
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    moving = [variable.numpy() for variable in model.non_trainable_variables]
    return [outputs.numpy(), *[gradient.numpy() for gradient in gradients], *moving]


@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"scale": False, "center": False}], ids=["affine", "plain"])
def test_outputs_gradients_and_statistics_are_keras_own(policy, options):
    images = np.random.default_rng(0).normal(2, 3, (4, 6, 5, 3)).astype(np.float32)
    plain, fused = _network(policy, **options), _network(policy, **options)
    assert fused_batch_norm.fuse(fused) == 1
    for ours, keras_own in zip(_trained_once(fused, images), _trained_once(plain, images), strict=True):
        scale = max(np.abs(keras_own).max(), 1)
        assert np.abs(ours - keras_own).max() <= TOLERANCE[policy] * scale


def test_a_single_value_per_channel_gives_no_infinite_variance():
    layer = keras.layers.BatchNormalization(momentum=0.5)
    inputs = keras.Input((1, 1, 2))
    model = keras.Model(inputs, layer(inputs))
    fused_batch_norm.fuse(model)
    outputs = model(np.ones((1, 1, 1, 2), np.float32), training=True)
    assert np.array_equal(outputs, np.zeros((1, 1, 1, 2)))
    assert np.array_equal(layer.moving_variance, [0.5, 0.5])


def test_in_inference_and_when_frozen_nothing_changes():
    images = np.random.default_rng(0).normal(2, 3, (4, 6, 5, 3)).astype(np.float32)
    plain, fused = _network(), _network()
    fused_batch_norm.fuse(fused)
    assert np.array_equal(plain(images, training=False), fused(images, training=False))
    plain.trainable = fused.trainable = False
    assert np.array_equal(plain(images, training=True), fused(images, training=True))


@pytest.mark.parametrize(
    ("shape", "options"), [((7,), {}), ((6, 5, 3), {"axis": 1}), ((4, 4, 4, 3), {})], ids=["2d", "axis", "3d"]
)
def test_layers_of_another_shape_or_axis_stay_keras_own(shape, options):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.BatchNormalization(**options)(inputs))
    assert fused_batch_norm.fuse(model) == 0
    assert model(np.ones((2, *shape), np.float32), training=True).shape == (2, *shape)


@pytest.mark.slow
def test_a_network_trained_with_it_is_saved_as_plain_keras(tmp_path):
    model = task_model.build("a", Architecture("small_cnn", image_size=8, fine_tune="all"), ("x", "y"))
    norms = [layer for layer in keras_graph.flat_layers(model.extractor) if "batch_norm" in layer.name]
    assert norms and all(layer.call.__func__ is fused_batch_norm._call for layer in norms)
    model.saved_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert {type(layer).__module__.split(".")[0] for layer in keras_graph.flat_layers(loaded)} == {"keras"}
    images = np.full((2, 8, 8, 3), 99, np.float32)
    assert np.array_equal(loaded(images), model.saved_model(images))
