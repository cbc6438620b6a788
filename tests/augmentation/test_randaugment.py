import keras
import keras_cv
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from deepduel.augment import Augmentation, augment
from deepduel.augmentation import randaugment

pytestmark = pytest.mark.numeric

SPEC = Augmentation(rotation_range=20, rand_augment=2)


def seed_pairs(count, start=0):
    return tf.constant(np.random.default_rng(start).integers(-(2**31), 2**31, (count, 2)), tf.int32)


def pictures(count, size, seed=0):
    return tf.constant(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3)), tf.uint8)


def floats(nest):
    return [np.asarray(part, float).ravel() for part in tf.nest.flatten(nest) if part is not None]


@pytest.mark.parametrize("number", range(10))
def test_each_layers_transformations_are_distributed_as_keras_cvs(number):
    layer = randaugment._layers(0.4)[number]
    uniform = tf.constant(np.random.default_rng(number).random((4000, 3)), tf.float32)
    tf.random.set_seed(1)
    layer._random_generator.reset_from_seed(5)
    ours = floats(randaugment._transformations(layer, uniform))
    theirs = floats(layer.get_random_transformation_batch(4000))
    # Zeros: a shear or a shift by nothing in the other direction.
    ours, theirs = ([values for values in drawn if values.any()] for drawn in (ours, theirs))
    if type(layer).__name__ in ("AutoContrast", "Equalization"):  # draw nothing; the base class gives zeros
        assert ours == []
        return
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert scipy.stats.ks_2samp(one, other).pvalue > 1e-3


def test_the_operations_are_those_of_keras_cvs_rand_augment_and_equally_frequent():
    ours = [type(layer).__name__ for layer in randaugment._layers(0.5)]
    theirs = keras_cv.layers.RandAugment((0, 255), magnitude=0.5)
    assert ours == [type(layer).__name__ for layer in theirs.layers]
    assert (theirs.rate, theirs.magnitude_stddev) == (randaugment._RATE, randaugment._STDDEV)


def test_an_image_goes_through_the_layer_that_was_drawn_and_one_in_eleven_through_none():
    images = tf.zeros([3000, 1, 1, 3])

    class Adds:
        def __init__(self, number):
            self.number = number

        def augment_images(self, images, transformations):
            return images + self.number

    layers = [Adds(number + 1) for number in range(10)]
    chosen = tf.constant(np.random.default_rng(0).integers(0, 11, 3000), tf.int32)
    out = randaugment._one_round(images, chosen, tf.zeros([3000, 3]), layers)[:, 0, 0, 0].numpy()
    np.testing.assert_array_equal(out, (chosen.numpy() + 1) % 11)


@pytest.mark.slow
def test_eager_graph_and_mapped_have_the_same_bits_whatever_the_batch():
    images, seeds = pictures(23, 20), seed_pairs(23)
    function = tf.function(lambda images, seeds: augment(images, seeds, SPEC, 24), reduce_retracing=True)
    whole = function(images, seeds).numpy()
    np.testing.assert_array_equal(augment(images, seeds, SPEC, 24), whole)
    dataset = tf.data.Dataset.from_tensor_slices((images, seeds)).batch(4)
    dataset = dataset.map(lambda images, seeds: augment(images, seeds, SPEC, 24))
    np.testing.assert_array_equal(np.concatenate(list(dataset.as_numpy_iterator())), whole)
    np.testing.assert_array_equal(function(images[5:6], seeds[5:6])[0], whole[5])
    turned = function(images[::-1], seeds[::-1]).numpy()
    np.testing.assert_array_equal(turned[::-1], whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("float32", marks=pytest.mark.scale),
        "mixed_float16",
        pytest.param("mixed_bfloat16", marks=pytest.mark.scale),
    ],
)
def test_pixels_are_float32_whole_numbers_under_every_policy(policy):
    images, seeds = pictures(16, 16), tf.stack([tf.zeros(16, tf.int32), tf.range(16)], 1)
    expected = augment(images, seeds, Augmentation(rand_augment=3, rand_augment_magnitude=0.7), 16).numpy()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    randaugment._layers.cache_clear()
    randaugment._function.cache_clear()
    try:
        out = augment(images, seeds, Augmentation(rand_augment=3, rand_augment_magnitude=0.7), 16)
    finally:
        keras.config.set_dtype_policy(before)
        randaugment._layers.cache_clear()
        randaugment._function.cache_clear()
    assert out.dtype == tf.float32
    np.testing.assert_array_equal(out, expected)
    assert (expected == np.round(expected)).all() and expected.min() >= 0 and expected.max() <= 255
    changed = (expected != images.numpy()).any(axis=(1, 2, 3))
    assert changed.mean() > 0.8


@pytest.mark.slow
def test_more_operations_leave_the_first_ones_as_they_were():
    images, seeds = pictures(12, 16), seed_pairs(12)
    one = tf.cast(images, tf.float32)
    two = randaugment.rand_augment(one, seeds, operations=2, magnitude=0.5).numpy()
    first = randaugment.rand_augment(one, seeds, operations=1, magnitude=0.5).numpy()
    drawn = randaugment.uniforms(seeds, 10, family=2)
    still = drawn[:, 5].numpy() >= randaugment._RATE  # the second round leaves these alone
    for k in np.flatnonzero(still):
        np.testing.assert_array_equal(two[k], first[k])
    assert (two != first).any()


@pytest.mark.slow
def test_an_empty_batch_can_be_augmented():
    out = augment(pictures(0, 8), seed_pairs(0), SPEC, 8)
    assert out.shape == (0, 8, 8, 3) and out.dtype == tf.float32
