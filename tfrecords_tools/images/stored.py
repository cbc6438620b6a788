"""The bytes of a record's image -> its pixels, whatever encoding the record has."""

import numpy as np
import simplejpeg

from tfrecords_tools.images import image, jpeg, limits
from tfrecords_tools.images.encoding_options import MAX_PIXELS


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
        if height * width > MAX_PIXELS:
            raise ValueError(f"{height}x{width} pixels, more than the {MAX_PIXELS:,} that are decoded")
        size = _jpeg_size(data) if encoding == "jpeg" else image.png_size(data)
        if size != (height, width):  # before anything is allocated
            raise ValueError(f"{size} pixels, the index says {(height, width)}")
        return image.decode(data)
    except MemoryError as error:
        raise ValueError("decoding it needs more memory than is available") from error
    except Exception as error:  # decoders of hostile bytes raise anything: SyntaxError, struct.error, …
        raise ValueError(str(error)) from error


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """(height, width) by a JPEG's header. Raises ValueError when it has none, or too many scans."""
    if reason := limits.excessive_scans(bytes(data), jpeg.scan(bytes(data))):
        raise ValueError(reason)
    return simplejpeg.decode_jpeg_header(data, strict=False)[:2]
