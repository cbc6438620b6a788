"""Turned JPEGs: blocks that stay the source's, and what becomes of the others."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from tests.helpers import odd_images
from tfrecords_tools.images import jpeg, turning

BACK = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def photo(height: int, width: int, orientation: int, mode: str = "RGB", **options) -> bytes:
    """A JPEG of medium grey levels, so that no block is clipped to 0..255, with structure in every block."""
    pixels = np.asarray(odd_images.picture(height, width).point(lambda value: 70 + value * 0.4))
    noise = np.random.default_rng(0).integers(-20, 20, pixels.shape)
    image = Image.fromarray((pixels + noise).astype(np.uint8)).convert(mode)
    return odd_images.save(image, "JPEG", quality=85, exif=odd_images.exif(orientation), **options)


def with_orientation(data: bytes, orientation: int) -> bytes:
    block = odd_images.exif(orientation)
    return data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]


def turn(data: bytes) -> turning.Upright:
    return turning.upright(data, jpeg.scan(data))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(
    "options",
    [{"subsampling": 2}, {"subsampling": 0}, {"mode": "L"}, {"subsampling": 2, "progressive": True}],
)
def test_turning_there_and_back_gives_the_sources_pixels_bit_for_bit(orientation, options):
    source = photo(48, 64, orientation, **options)
    turned = turn(source)
    back = turn(with_orientation(turned.data, BACK[orientation]))
    assert turned.same_blocks and back.same_blocks
    np.testing.assert_array_equal(simplejpeg.decode_jpeg(back.data), simplejpeg.decode_jpeg(source))


@pytest.mark.parametrize(
    ("orientation", "height", "width"), [(6, 48, 61), (8, 37, 64), (5, 37, 61), (2, 37, 64), (4, 48, 61)]
)
@pytest.mark.parametrize("options", [{"subsampling": 2}, {"subsampling": 0}, {"mode": "L"}])
def test_a_side_that_keeps_its_beginning_may_have_any_length(orientation, height, width, options):
    source = photo(height, width, orientation, **options)
    turned = turn(source)
    assert turned.same_blocks
    expected = Image.fromarray(simplejpeg.decode_jpeg(source)).transpose(turning.TRANSPOSE[orientation])
    assert (turned.width, turned.height) == expected.size
    difference = simplejpeg.decode_jpeg(turned.data).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 3  # the decoder's own rounding, which is not symmetric


@pytest.mark.parametrize(
    ("height", "width", "sampling"), [(40, 64, 2), (37, 64, 2), (37, 64, 0), (48, 64, 1)]
)
def test_blocks_cut_anew_have_steps_half_as_wide(height, width, sampling):
    source = photo(height, width, 6, subsampling=sampling)
    turned = turn(source)
    assert not turned.same_blocks
    tables = [np.array(table).reshape(8, 8) for table in steps(source)]
    luma, colour = (np.array(table).reshape(8, 8) for table in steps(turned.data))
    np.testing.assert_array_equal(colour, [[max(1, round(step / 2)) for step in row] for row in tables[1].T])
    if height % 8 == 0:
        np.testing.assert_array_equal(luma, tables[0].T)
    expected = Image.fromarray(simplejpeg.decode_jpeg(source)).transpose(turning.TRANSPOSE[6])
    difference = np.abs(simplejpeg.decode_jpeg(turned.data).astype(int) - np.asarray(expected))
    assert difference.mean() < 4


def steps(data: bytes) -> list[list[int]]:
    with Image.open(io.BytesIO(data)) as opened:
        return list(opened.quantization.values())


def test_what_cannot_be_turned_is_left_to_others():
    assert turn(photo(48, 64, 6, keep_rgb=True)) is None
    assert turn(photo(48, 64, 6)[:-900]) is None
