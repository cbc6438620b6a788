"""Pictures and seeds to augment, and Keras' way to do it."""

import numpy as np
import scipy.ndimage
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from deepduel.augment import PRESETS

ORIGINAL = PRESETS["original"]


def generator(spec=ORIGINAL):
    """Keras's generator with the same ranges."""
    return ImageDataGenerator(
        rotation_range=spec.rotation_range,
        width_shift_range=spec.width_shift_range,
        height_shift_range=spec.height_shift_range,
        shear_range=spec.shear_range,
        zoom_range=list(spec.zooms),
        horizontal_flip=spec.horizontal_flip,
        vertical_flip=spec.vertical_flip,
        brightness_range=spec.brightness_range,
        channel_shift_range=spec.channel_shift_range,
        fill_mode=spec.fill_mode,
        cval=spec.cval,
    )


def photo_like(count, height, width, seed=0):
    """uint8 pictures: smooth shapes, edges and fine texture."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, height, width, 3))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 12, 12, 0.5))
    edges = np.sign(scipy.ndimage.gaussian_filter(noise[..., ::-1], (0, 6, 6, 0)))
    texture = scipy.ndimage.gaussian_filter(noise, (0, 0.8, 0.8, 0))
    mix = 50 * smooth / smooth.std() + 25 * edges + 12 * texture / texture.std()
    return np.clip(128 + mix, 0, 255).astype(np.uint8)


def seed_pairs(count, start=0):
    return tf.constant(np.random.default_rng(start).integers(-(2**31), 2**31, (count, 2)), tf.int32)
