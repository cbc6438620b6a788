"""Brightness, blur and JPEG: pixels change where they are."""

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import pytest
import scipy.ndimage
import tensorflow as tf

from deepduel.augmentation import photometric
from tests.helpers.augmented import photo_like

pytestmark = pytest.mark.numeric


def test_brightness_is_pillows():
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    for factor in (0.0, 0.3, 0.77, 1.0, 1.21, 1.7, 3.0):
        enhanced = PIL.ImageEnhance.Brightness(PIL.Image.fromarray(values[0])).enhance(factor)
        ours = photometric.brightness(tf.cast(values, tf.float32), tf.constant([factor]))
        np.testing.assert_array_equal(ours[0], np.asarray(enhanced))


def test_blur_is_scipys_gaussian_and_zero_leaves_the_image():
    images = photo_like(2, 30, 26).astype("float32")
    ours = photometric.blur(tf.constant(images), tf.constant([0.0, 1.3]), 6).numpy()
    np.testing.assert_array_equal(ours[0], images[0])
    reference = scipy.ndimage.gaussian_filter(images[1], (1.3, 1.3, 0), mode="nearest", radius=(6, 6, 0))
    np.testing.assert_allclose(ours[1], reference, atol=1e-2)


def test_blur_of_images_smaller_than_its_radius_repeats_their_edges():
    images = photo_like(1, 3, 2).astype("float32")
    ours = photometric.blur(tf.constant(images), tf.constant([2.0]), 6).numpy()
    reference = scipy.ndimage.gaussian_filter(images[0], (2, 2, 0), mode="nearest", radius=(6, 6, 0))
    np.testing.assert_allclose(ours[0], reference, atol=1e-2)


@pytest.mark.parametrize("size", [(48, 64), (40, 52)])
@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_jpeg_leaves_what_libjpeg_leaves(quality, size, tmp_path):
    image = photo_like(1, *size, seed=quality)
    PIL.Image.fromarray(image[0]).save(tmp_path / "a.jpg", quality=quality, subsampling=2)
    reference = np.asarray(PIL.Image.open(tmp_path / "a.jpg")).astype(float)
    ours = photometric.jpeg(tf.cast(image, tf.float32), tf.constant([float(quality)])).numpy()[0]
    damage = np.abs(reference - image[0]).mean()
    assert np.abs(ours - reference).mean() < min(1.1, damage / 5)  # measured: 0.24 to 1.06
    untouched = photometric.jpeg(tf.cast(image, tf.float32), tf.constant([0.0]))
    np.testing.assert_array_equal(untouched, image)
