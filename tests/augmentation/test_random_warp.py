"""The augmentation as a keras-cv layer."""

import json

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf

from deepduel.augment import RandomWarp, augment, resize
from tests.helpers.augmented import ORIGINAL, photo_like, seed_pairs

pytestmark = pytest.mark.numeric


def test_the_layer_with_seeds_is_augment():
    images, seeds = tf.constant(photo_like(3, 24, 24)), seed_pairs(3)
    layer = RandomWarp(size=28, augmentation=ORIGINAL)
    expected = augment(images, seeds, ORIGINAL, 28)
    out = layer({"images": images, "labels": tf.constant([1, 2, 3]), "seeds": seeds})
    np.testing.assert_array_equal(out["images"], expected)
    single = layer({"images": images[1], "seeds": seeds[1]})
    np.testing.assert_array_equal(single["images"], expected[1])
    mapped = tf.data.Dataset.from_tensors({"images": images, "seeds": seeds}).map(layer)
    np.testing.assert_array_equal(next(iter(mapped))["images"], expected)


@pytest.mark.parametrize("seed", [0, 1, -5])
def test_the_layers_own_seed_repeats_and_moves_on(seed):
    images = tf.constant(photo_like(2, 16, 16))
    one, other = (RandomWarp(seed=seed, rotation_range=90, zoom_range=0.3) for _ in range(2))
    first, second = one(images), one(images)
    np.testing.assert_array_equal(first, other(images))
    np.testing.assert_array_equal(second, other(images))
    assert np.abs(first - second).max() > 1
    assert np.abs(RandomWarp(seed=seed + 7, rotation_range=90)(images) - first).max() > 1


def test_without_training_the_layer_only_resizes():
    images = tf.constant(photo_like(2, 24, 24))
    layer = RandomWarp(size=30, seed=0, augmentation=ORIGINAL)
    np.testing.assert_array_equal(layer(images, training=False), resize(images, 30))
    model = keras.Sequential([keras.Input((24, 24, 3), dtype="uint8"), layer])
    assert model.output_shape == (None, 30, 30, 3)
    np.testing.assert_array_equal(model.predict(images, verbose=0), resize(images, 30))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_labels_keep_their_type_under_every_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = RandomWarp(seed=0, augmentation=ORIGINAL)
        images = tf.constant(photo_like(2, 16, 16))
        for labels in (tf.constant([300_001, 2]), tf.constant([[0.1, 0.9]] * 2), tf.constant([True, False])):
            out = layer({"images": images, "labels": labels})
            assert out["labels"].dtype == labels.dtype
            np.testing.assert_array_equal(out["labels"], labels)
            assert out["images"].dtype == tf.float32
        half = RandomWarp(seed=0, augmentation=ORIGINAL, dtype=policy)(images)
        assert half.dtype == keras.DTypePolicy(policy).compute_dtype
    finally:
        keras.config.set_dtype_policy(before)


def test_the_layer_survives_serialisation():
    layer = RandomWarp(size=20, seed=0, augmentation=ORIGINAL, name="warp")
    config = json.loads(json.dumps(layer.get_config()))
    again = RandomWarp.from_config(config)
    assert (again.augmentation, again.size, again.seed, again.name) == (ORIGINAL, (20, 20), 0, "warp")
    images = tf.constant(photo_like(2, 24, 24))
    np.testing.assert_array_equal(again(images), layer(images))


def test_a_saved_model_holds_the_layer(tmp_path):
    layer = RandomWarp(size=20, seed=0, augmentation=ORIGINAL)
    model = keras.Sequential([keras.Input((24, 24, 3), dtype="uint8"), layer])
    model.save(tmp_path / "model.keras")
    images = photo_like(2, 24, 24)
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))


def test_a_model_with_the_layer_is_not_compiled_by_xla_as_a_whole():
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), RandomWarp(seed=0, rotation_range=9), keras.layers.Flatten(),
         keras.layers.Dense(1)]
    )  # fmt: skip
    model.compile("sgd", "mse", jit_compile="auto")
    model.fit(photo_like(4, 12, 12) / 255, np.zeros(4), verbose=0)
    assert not model.jit_compile


def test_other_keras_cv_layers_can_follow():
    images = tf.constant(photo_like(4, 24, 24))
    labels = tf.one_hot([0, 1, 2, 1], 3)
    batch = RandomWarp(size=32, seed=0, augmentation=ORIGINAL)({"images": images, "labels": labels})
    for layer in (
        keras_cv.layers.RandAugment(value_range=(0, 255), seed=1),
        keras_cv.layers.CutMix(seed=1),
        keras_cv.layers.MixUp(seed=1),
    ):
        batch = layer(batch)
    assert batch["images"].shape == (4, 32, 32, 3)
    np.testing.assert_allclose(tf.reduce_sum(batch["labels"], axis=1), 1, atol=1e-5)


def test_what_the_layer_cannot_move_is_refused():
    with pytest.raises(ValueError, match="'segmentation_masks' would no longer match"):
        RandomWarp(seed=0)({"images": photo_like(1, 8, 8), "segmentation_masks": np.zeros((1, 8, 8, 1))})


def test_the_layer_takes_numpy_arrays():
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    expected = RandomWarp(size=8, seed=0, rotation_range=20)(tf.constant(images))
    np.testing.assert_array_equal(RandomWarp(size=8, seed=0, rotation_range=20)(images), expected)
    actual = RandomWarp(size=8, seed=0, rotation_range=20)({"images": images})["images"]
    np.testing.assert_array_equal(actual, expected)
