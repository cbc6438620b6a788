"""The device computes what the CPU computes: bits where the fixed-point arithmetic promises them."""

import numpy as np
import pytest
import tensorflow as tf

from deepduel.augment import PRESETS, Augmentation
from deepduel.augmentation import antialias, mixing, photometric
from deepduel.augmentation.draws import draw, uniforms
from deepduel.augmentation.options import FILL_MODES
from deepduel.augmentation.transform import apply_transform, augment
from deepduel.mixing import Mixing
from tests.helpers.augmented import photo_like, seed_pairs

COUNT = 48
EVERYTHING = Augmentation(
    rotation_range=30, width_shift_range=0.1, height_shift_range=5, shear_range=10.0, zoom_range=0.3,
    horizontal_flip=True, vertical_flip=True, channel_shift_range=20.0, brightness_range=(0.3, 1.7),
    quarter_turns=True, shift_pixels=8, crop_size=160, blur_sigma=(0.0, 1.5), jpeg_quality=(60, 100),
)  # fmt: skip


def on_both(device, function, *arrays):
    """Results of `function` on the CPU and on the device, as NumPy arrays; checks where each was computed."""
    results = []
    for place in ("CPU:0", device):
        with tf.device(place):
            outputs = function(*(tf.identity(tf.constant(array)) for array in arrays))
        for tensor in tf.nest.flatten(outputs):
            assert tensor.device.endswith(place), f"computed on {tensor.device}"
        results.append([tensor.numpy() for tensor in tf.nest.flatten(outputs)])
    return results


def assert_same_bits(pair):
    for cpu, other in zip(*pair, strict=True):
        different = np.mean(cpu != other)
        assert cpu.tobytes() == other.tobytes(), (
            f"{different:.2%} of the values differ, by up to {np.abs(cpu.astype(float) - other).max()}"
        )


def compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


@pytest.fixture(scope="module")
def images():
    return photo_like(COUNT, 200, 200)


@pytest.fixture(scope="module")
def seeds():
    return seed_pairs(COUNT).numpy()


def test_uniforms_have_the_same_bits(device, seeds):
    assert_same_bits(on_both(device, compiled(lambda seeds: uniforms(seeds, 21)), seeds))


def test_draws_have_the_same_bits(device, seeds):
    assert_same_bits(on_both(device, compiled(lambda seeds: draw(EVERYTHING, seeds, 200, 200)), seeds))


@pytest.mark.parametrize("size", [160, 200, 224, 96])
@pytest.mark.parametrize("preset", ["original", "light", "forensic"])
def test_the_warp_has_the_same_bits(device, images, seeds, preset, size):
    run = lambda images, seeds: augment(images, seeds, PRESETS[preset], size)
    if preset == "forensic" and size != 200:
        pytest.skip("moves whole pixels, without a resize")
    with tf.device(device):  # the cache of compiled functions must serve each device with its own
        assert_same_bits(on_both(device, tf.function(run, autograph=False), images, seeds))


@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_every_fill_mode_has_the_same_bits(device, images, fill_mode):
    rng = np.random.default_rng(0)
    columns = [rng.uniform(-45, 45, COUNT), rng.uniform(-150, 150, COUNT), rng.uniform(0.5, 2, COUNT)]

    def run(images, theta, tx, zx):
        parameters = {"theta": theta, "tx": tx, "zx": zx}
        return apply_transform(images, parameters, size=224, fill_mode=fill_mode, cval=17)

    arrays = [np.float32(values) for values in columns]
    assert_same_bits(on_both(device, compiled(run), images, *arrays))


def test_mixing_draws_the_same_partners_and_boxes(device, seeds):
    plan = compiled(lambda seeds: mixing.plan(Mixing(0.4, 1.0), 224, seeds))
    (cpu, other) = on_both(device, plan, seeds)
    for name, one, two in zip(mixing.Mix._fields, cpu, other, strict=True):
        if name in ("partner", "box"):
            np.testing.assert_array_equal(one, two, err_msg=name)
        else:  # a square root, and sums that a compiler may fuse
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-6, err_msg=name)


def test_mixed_images_are_equal_to_a_thousandth_of_a_grey_level(device, images, seeds):
    def run(images, seeds):
        mix = mixing.plan(Mixing(0.4, 1.0), 200, seeds)
        pixels = tf.cast(images, tf.float32)
        return mixing.mix_images(pixels, tf.gather(pixels, mix.partner), mix.keep, mix.box)

    cpu, other = on_both(device, compiled(run), images, seeds)
    np.testing.assert_allclose(cpu[0], other[0], rtol=0, atol=1e-3)


def test_blur_is_equal_to_a_hundredth_of_a_grey_level(device, images):
    sigma = np.linspace(0, 2, COUNT).astype(np.float32)
    run = compiled(lambda images, sigma: photometric.blur(tf.cast(images, tf.float32), sigma, 6))
    cpu, other = on_both(device, run, images, sigma)
    np.testing.assert_allclose(cpu[0], other[0], rtol=0, atol=1e-2)


def test_jpeg_is_equal_but_for_what_lies_at_a_rounding_edge(device, images):
    """A coefficient at the edge between two steps moves a whole block: rare, and small on average."""
    quality = np.linspace(0, 100, COUNT).astype(np.float32)
    run = compiled(lambda images, quality: photometric.jpeg(tf.cast(images, tf.float32), quality))
    cpu, other = on_both(device, run, images, quality)
    assert np.mean(cpu[0] != other[0]) < 1e-3
    assert np.abs(cpu[0] - other[0]).mean() < 1e-2


def test_the_same_draw_in_another_batch_is_the_same(device, images, seeds):
    with tf.device(device):
        whole = augment(images, seeds, PRESETS["original"], 224).numpy()
        part = augment(images[7:12], seeds[7:12], PRESETS["original"], 224).numpy()
    np.testing.assert_array_equal(whole[7:12], part)


def test_the_resize_of_validation_is_tensorflows_to_a_hundredth_of_a_grey_level(device, images):
    _, (resized,) = on_both(device, lambda images: antialias.resize(images, (96, 120)), images)
    with tf.device("CPU:0"):
        expected = tf.image.resize(images, (96, 120), antialias=True)
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-2)


def test_partners_are_taken_on_the_device(device, images):
    places = np.arange(COUNT, dtype=np.int32)[::-5]
    cpu, other = on_both(device, mixing.take, images, places)
    np.testing.assert_array_equal(cpu[0], images[places])
    np.testing.assert_array_equal(other[0], images[places])
