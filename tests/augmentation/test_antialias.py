import numpy as np
import pytest
import tensorflow as tf

from deepduel.augmentation import antialias


@pytest.mark.parametrize("size", [(25, 40), (13, 90), (50, 61)])
def test_products_resize_as_tensorflow_does(size):
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 61, 3), np.uint8)
    expected = tf.image.resize(images, size, antialias=True)
    np.testing.assert_allclose(antialias.resize(tf.constant(images), size), expected, atol=0.01)
