import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from deepduel.networks import backbones, input_filters, task_model
from deepduel.networks.architecture import INPUT_FILTERS, OWN_BACKBONES, Architecture

pytestmark = pytest.mark.numeric

FILTERS = ["highpass", "srm", "spectrum"]


def pixels(size: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)


def filtered(name: str, images: np.ndarray) -> np.ndarray:
    return np.asarray(input_filters.FILTERS[name](images))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [1, 5, 24])
def test_gives_an_image_of_the_same_kind(name, size):
    actual = filtered(name, pixels(size))
    assert actual.shape == (2, size, size, 3)
    assert actual.dtype == np.float32
    assert actual.min() >= 0
    assert actual.max() <= 255.001


@pytest.mark.parametrize("name", ["highpass", "srm"])
def test_nothing_is_left_of_what_is_even(name):
    even = np.full((1, 9, 9, 3), 200, np.float32)
    np.testing.assert_array_equal(filtered(name, even), 127.5)


@pytest.mark.parametrize("name", ["highpass", "srm"])
def test_whole_pixels_are_filtered_exactly_in_any_order_of_addition(name):
    """A mirrored image is summed in another order, and the kernels are the same mirrored."""
    images = np.round(128 + pixels() / 40)
    np.testing.assert_array_equal(
        filtered(name, images[:, ::-1, ::-1])[:, ::-1, ::-1], filtered(name, images)
    )


def test_srm_is_the_three_published_kernels():
    images = 128 + pixels() / 400  # small enough for no residual to be cut off
    published = [
        (np.array([[1, -2, 1]]), 2),
        (np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]), 4),
        (
            np.array(
                [
                    [-1, 2, -2, 2, -1],
                    [2, -6, 8, -6, 2],
                    [-2, 8, -12, 8, -2],
                    [2, -6, 8, -6, 2],
                    [-1, 2, -2, 2, -1],
                ]
            ),
            12,
        ),
    ]
    actual = (filtered("srm", images) - 127.5) / 127.5 * 3
    for number, (kernel, scale) in enumerate(published):
        each = [ndimage.correlate(images[0, :, :, c], kernel / scale, mode="nearest") for c in range(3)]
        np.testing.assert_allclose(actual[0, :, :, number], np.mean(each, axis=0), atol=2e-3)


def test_the_spectrum_is_numpys_with_frequency_zero_in_the_middle():
    images = pixels()
    transformed = np.fft.fftshift(np.fft.fft2(images, axes=(1, 2)), axes=(1, 2))
    expected = np.log1p(np.abs(transformed) / 24) * 255 / np.log1p(255 * 24)
    np.testing.assert_allclose(filtered("spectrum", images), expected, atol=1e-2)
    white = np.full((1, 24, 24, 3), 255, np.float32)
    assert filtered("spectrum", white)[0, 12, 12, 0] == pytest.approx(255, abs=0.01)


@pytest.mark.parametrize(("name", "divisors"), [("highpass", 4), ("srm", (2, 4, 12))])
def test_kernels_that_an_earlier_versions_state_holds_divided_are_whole_again(name, divisors):
    architecture = Architecture("small_cnn", image_size=24, weights="none", input_filter=name)
    extractor = task_model.build(name, architecture, ("x", "y")).extractor
    expected = extractor(pixels())
    kernel = extractor.get_layer(name).kernel
    kernel.assign(kernel / np.array(divisors, np.float32))
    assert np.abs(extractor(pixels()) - expected).max() > 1e-3
    input_filters.reset_kernels(extractor)
    np.testing.assert_array_equal(extractor(pixels()), expected)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.scale)])
def test_a_saved_model_with_filters_needs_nothing_of_ours(tmp_path, precision):
    images = pixels()
    kept = {"pixels": images}
    for name in FILTERS:
        architecture = Architecture("forensic_cnn", image_size=24, input_filter=name, precision=precision)
        built = task_model.build(name, architecture, ("x", "y"))
        assert not any("depthwise" in variable.path for variable in built.extractor.trainable_variables)
        built.saved_model.save(tmp_path / f"{name}.keras")
        kept[name] = built.saved_model.predict(images, verbose=0)
    np.savez(tmp_path / "kept.npz", **kept)
    code = """
import sys, keras, numpy
kept = numpy.load("kept.npz")
for name in ("highpass", "srm", "spectrum"):
    predictions = keras.models.load_model(name + ".keras").predict(kept["pixels"], verbose=0)
    numpy.testing.assert_allclose(predictions, kept[name], rtol=1e-5, atol=1e-6)
assert not [name for name in sys.modules if name.startswith(("deepduel", "tfrecords_tools"))]
"""
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)


def test_all_that_options_name_are_there():
    assert tuple(input_filters.FILTERS) == INPUT_FILTERS
    assert tuple(backbones.OWN) == OWN_BACKBONES
