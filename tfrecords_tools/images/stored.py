"""The bytes of a record's image -> its pixels, whatever encoding the record has."""

import numpy as np

from tfrecords_tools.images import image


def stored_pixels(data: bytes | memoryview, encoding: str, height: int, width: int) -> np.ndarray:
    """Decodes an image as it is stored in a record.

    Args:
      data: the record's `image` feature.
      encoding: "jpeg", "png" or "raw", as the record's row of the index says.
      height, width: its size in pixels, as the index says.

    Returns:
      Upright RGB pixels, uint8 [height, width, 3]; read-only for "raw".

    Raises:
      ValueError: the bytes don't decode, or have another size.
    """
    if encoding == "raw":
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)
    try:
        pixels = image.decode(data)
    except MemoryError:
        raise
    except Exception as error:  # decoders of hostile bytes raise anything: SyntaxError, struct.error, …
        raise ValueError(str(error)) from error
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"{pixels.shape[:2]} pixels, the index says {(height, width)}")
    return pixels
