"""Image files and images in memory -> uint8 [H, W, 3], the pixels that they would have after conversion."""

import numpy as np
from PIL import Image

from deepduel.decoding.image import DecodeOptions, decode_image, decode_jpeg, resize_image
from tfrecords_tools.images import image as images
from tfrecords_tools.images import jpeg
from tfrecords_tools.images.encoding_options import KEEP, MAX_PIXELS, EncodingOptions


def decode(
    data: bytes, decoding: DecodeOptions, out: np.ndarray, encoding: EncodingOptions = KEEP
) -> images.Rejected | None:
    """Decodes an image file to the pixels that the pipeline would give for it after conversion.

    Args:
      data: the bytes of the file.
      out: uint8 [H, W, 3] of `decoding.size`, to write the pixels to; undefined if the image is rejected.
      encoding: the conversion's.

    Returns:
      None, or the reason why the image is unreadable.
    """
    keeps = encoding.encoding == "keep"
    if keeps and encoding.turned == "jpeg" and _decode_common_jpeg(data, decoding, out):
        return None
    if keeps and encoding.turned == "jpeg" and encoding.pixels.damaged == "reject":
        # What would be stored as PNG: the same pixels without compressing them first.
        pixels = images.pixels(data, max_pixels=encoding.max_pixels, options=encoding.pixels)
        if isinstance(pixels, images.Rejected):
            return images.with_remedy(pixels, data, encoding)
        out[...] = resize_image(pixels, decoding)
        return None
    stored = images.check(data, encoding)
    if isinstance(stored, images.Rejected):
        return images.with_remedy(stored, data, encoding)
    decode_image(stored.data, stored.encoding, stored.height, stored.width, decoding, out)
    return None


def decode_picture(
    upright: Image.Image, decoding: DecodeOptions, out: np.ndarray, encoding: EncodingOptions = KEEP
) -> None:
    """The same for an image in memory, upright RGB."""
    if encoding.encoding == "keep":
        out[...] = resize_image(np.asarray(upright), decoding)
        return
    data, height, width, name = encoding.encode(upright)
    decode_image(data, name, height, width, decoding, out)


def _decode_common_jpeg(data: bytes, decoding: DecodeOptions, out: np.ndarray) -> bool:
    """Decodes a JPEG that is stored as it is, or upright as a JPEG; False for anything else."""
    header = jpeg.scan(data) if data[:3] == b"\xff\xd8\xff" else None
    if header is None or not header.common or header.height * header.width > MAX_PIXELS:
        return False
    stored: images.Checked | images.Rejected | None
    stored = images.Checked(data, header.height, header.width, "jpeg")
    if header.orientation != 1:
        stored = images.upright_jpeg(data, header)
    if not isinstance(stored, images.Checked):
        return False
    try:
        decode_jpeg(stored.data, stored.height, stored.width, decoding, out)
    except ValueError:
        return False  # it may still be readable: `images.pixels` tolerates harmless damage
    return True
