"""Pixels that are sampled packed: the same bits as those of the eager transform, which samples bytes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from deepduel.augment import Augmentation, apply_transform, augment, draw
from deepduel.augmentation import warp
from deepduel.augmentation.options import FILL_MODES
from deepduel.augmentation.packed_pixels import PackedPixels
from tests.helpers.augmented import ORIGINAL, photo_like, seed_pairs

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("stored, size", [((64, 64), (64, 64)), ((64, 80), (73, 70)), ((100, 70), (60, 36))])
def test_compiled_pixels_are_those_of_the_eager_transform(stored, size, fill_mode):
    """As many, more, and fewer pixels than stored; the last image too, behind which there is none."""
    augmentation = dataclasses.replace(ORIGINAL, fill_mode=fill_mode, cval=7.0)
    images, seeds = photo_like(3, *stored), seed_pairs(3)
    assert PackedPixels.pays(tf.constant(images), size)
    expected = apply_transform(
        images, draw(augmentation, seeds, *stored), size=size, fill_mode=fill_mode, cval=7.0
    )
    np.testing.assert_array_equal(augment(images, seeds, augmentation, size), expected)
    np.testing.assert_array_equal(augment(images[:1], seeds[:1], augmentation, size), expected[:1])


def test_every_byte_is_unpacked_as_it_was():
    images = tf.reshape(tf.range(3 * 64 * 64 * 3) % 256, [3, 64, 64, 3])
    pixels = PackedPixels(tf.cast(images, tf.uint8), (64, 64))
    row, column = tf.meshgrid(tf.range(64), tf.range(64), indexing="ij")
    place = [tf.broadcast_to(axis, [3, 64, 64]) for axis in (row, column)]
    np.testing.assert_array_equal(pixels.at(*place), images)
    np.testing.assert_array_equal(pixels.fetch_next(pixels.at(*place)), images)


@pytest.mark.parametrize(
    "shape, dtype, size",
    [
        ((2, 64, 64, 3), tf.float32, (64, 64)),
        ((2, 64, 64, 1), tf.uint8, (64, 64)),
        ((2, 63, 64, 3), tf.uint8, (63, 64)),
        ((2, 160, 160, 3), tf.uint8, (72, 72)),
    ],
    ids=["floats", "grey", "small", "a small part"],
)
def test_other_images_are_sampled_as_they_are(shape, dtype, size):
    assert not PackedPixels.pays(tf.zeros(shape, dtype), size)


def test_a_gpu_samples_bytes(monkeypatch):
    def refuse(*_):
        raise AssertionError("packed")

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a GPU"])
    monkeypatch.setattr(warp, "PackedPixels", refuse)
    augmentation = Augmentation(rotation_range=12.5)  # compiled for no other test
    assert augment(photo_like(1, 64, 64), seed_pairs(1), augmentation, 64).shape == (1, 64, 64, 3)
