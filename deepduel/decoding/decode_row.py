"""One image of a batch: its encoded bytes -> a row of pixels, uint8 [H, W, 3].

The same function decodes in this process and in the processes of `decode_pool`, so the pixels are the
same bit for bit. It needs neither TensorFlow nor the data folder.
"""

from collections.abc import Sequence

import numpy as np

from deepduel.decoding.image import DecodeOptions, decode_jpeg, fit_image
from tfrecords_tools.images import image as images

JPEG, RAW, OTHER = range(3)  # a JPEG, pixels, any other image


def decode_row(
    data: bytes | memoryview,
    kind: int,
    height: int,
    width: int,
    decoding: DecodeOptions,
    out: np.ndarray,
    seed: Sequence[int] | None = None,
) -> None:
    """Decodes an image of `height` x `width` pixels into `out`, uint8 [H, W, 3] of `decoding.size`.

    Args:
      seed: two int32 from which `DecodeOptions.fit` "native" draws its crop; None: the centre.

    Raises:
      ValueError, OSError: it does not decode, or has other sides.
    """
    if kind == JPEG:
        decode_jpeg(data, height, width, decoding, out, seed)
    elif kind == RAW:
        out[:] = fit_image(np.frombuffer(data, np.uint8).reshape(height, width, 3), decoding, seed)
    else:
        out[:] = fit_image(images.decode(bytes(data)), decoding, seed)
