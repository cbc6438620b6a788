"""The two libraries that resample give the same images."""

import concurrent.futures
import platform

import numpy as np
import PIL
import pytest

from deepduel.decoding import resample
from deepduel.decoding.image import DecodeOptions, resize_image

needs_cykooz = pytest.mark.skipif(resample.cykooz_resizer is None, reason="no wheel for this processor")
SIZES = [
    (1, 1), (1, 300), (300, 1), (2, 3), (7, 5), (50, 40), (49, 41), (64, 64), (333, 500), (500, 333),
    (20, 4000), (1200, 1600),
]  # fmt: skip


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def exactly(pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """The triangle filter in float64, rounded nowhere."""

    def weights(side: int, start: float, end: float, wanted: int) -> np.ndarray:
        step = (end - start) / wanted
        centres = start + (np.arange(wanted)[:, None] + 0.5) * step
        triangle = np.clip(1 - np.abs(np.arange(side) + 0.5 - centres) / max(step, 1), 0, None)
        return triangle / triangle.sum(axis=1, keepdims=True)

    left, top, right, bottom = box
    rows = weights(pixels.shape[0], top, bottom, size[0])
    columns = weights(pixels.shape[1], left, right, size[1])
    return np.einsum("yh,xw,hwc->yxc", rows, columns, pixels.astype(float), optimize=True)


@needs_cykooz
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_cykooz_and_pillow_differ_by_one_grey_level_at_most(height, width, monkeypatch):
    for options in (DecodeOptions((50, 40)), DecodeOptions((50, 40), "pad"), DecodeOptions((1, 3))):
        one = resize_image(noise(height, width), options)
        with monkeypatch.context() as patch:
            patch.setattr(resample, "cykooz_resizer", None)
            other = resize_image(noise(height, width), options)
        assert one.shape == other.shape == (*options.size, 3)
        assert np.abs(one.astype(int) - other).max() <= 1


@needs_cykooz
def test_both_are_as_near_to_the_exact_result():
    pixels, size, box = noise(120, 170), (50, 40), (20.3, 0.0, 116.3, 120.0)
    exact = exactly(pixels, size, box)
    ways = resample.with_cykooz, resample.with_pillow
    errors = [np.abs(way(pixels, size, box) - exact) for way in ways]
    assert max(error.max() for error in errors) <= 1.01
    assert abs(errors[0].mean() - errors[1].mean()) < 0.005


@needs_cykooz
def test_what_lies_far_from_the_box_is_not_read():
    """Only the part of an image around the box is copied: the result is that of the whole image."""
    pixels, box = noise(300, 400), (100.0, 50.0, 200.0, 150.0)
    changed = pixels.copy()
    changed[:46], changed[154:], changed[:, :96], changed[:, 204:] = 0, 0, 0, 0
    result = resample.with_cykooz(pixels, (50, 50), box)
    assert (result == resample.with_cykooz(changed, (50, 50), box)).all()
    changed[48:50] = 255 - changed[48:50]  # within the filter's reach
    assert not (result == resample.with_cykooz(changed, (50, 50), box)).all()


@needs_cykooz
def test_threads_do_not_disturb_one_another():
    images = [noise(height, 3 * height) for height in range(60, 92)]
    options = DecodeOptions((50, 40))
    expected = [resize_image(image, options) for image in images]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda image: resize_image(image, options), images * 4))
    assert all((result == expected[row % 32]).all() for row, result in enumerate(results))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="wheels are for x86-64")
def test_x86_64_has_the_faster_library():
    assert resample.library().startswith("cykooz.resizer 4.")


def test_without_a_wheel_pillow_resamples(monkeypatch):
    monkeypatch.setattr(resample, "cykooz_resizer", None)
    assert resample.library() == f"Pillow {PIL.__version__}"
    pixels, box = noise(30, 20), (1.0, 2.5, 15.0, 20.0)
    image = PIL.Image.fromarray(pixels).resize((9, 8), PIL.Image.Resampling.BILINEAR, box=box)
    assert (resample.resample(pixels, (8, 9), box) == np.asarray(image)).all()
