import io

import numpy as np
import pytest
from PIL import Image

from tfrecords_tools.images.stored import stored_pixels

PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


def encoded(form: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("data, encoding", [(PIXELS.tobytes(), "raw"), (encoded("PNG"), "png")])
def test_lossless_encodings_give_the_pixels_that_were_stored(data, encoding):
    np.testing.assert_array_equal(stored_pixels(data, encoding, 6, 4), PIXELS)


def test_a_grey_jpeg_has_three_equal_channels():
    pixels = stored_pixels(encoded("JPEG", "L"), "jpeg", 6, 4)
    assert pixels.shape == (6, 4, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize(
    "data, encoding",
    [(PIXELS.tobytes()[:-1], "raw"), (encoded("PNG")[:50], "png"), (b"no image", "jpeg"), (b"", "png")],
)
def test_bytes_that_do_not_decode_are_a_value_error(data, encoding):
    with pytest.raises(ValueError):
        stored_pixels(data, encoding, 6, 4)


def test_an_image_of_another_size_than_its_row_is_a_value_error():
    with pytest.raises(ValueError, match=r"\(6, 4\) pixels, the index says \(4, 6\)"):
        stored_pixels(encoded("PNG"), "png", 4, 6)
