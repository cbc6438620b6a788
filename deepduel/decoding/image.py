"""One encoded image of any size -> one uint8 row of a batch, [H, W, 3].

    "crop", "pad"   decode, as small as libjpeg-turbo can where that does no harm, then one resample
    "native"        decode, then cut out: every pixel of the row is a pixel of the image

libjpeg-turbo leaves out the finer half (three quarters, seven eighths) of each block's frequencies at
no cost, which is most of what a large photograph would take. Never below the row's own size: what
is left to shrink is resampled with an antialiasing (triangle) filter. The shares that are no power
of two are not used: libjpeg-turbo has no vector code for them, and they bring nothing.
"""

import dataclasses
import os
import threading
from collections.abc import Sequence

import numpy as np
import simplejpeg
from PIL import Image

FITS = ("crop", "pad", "native")
SCALES = (8, 4, 2)  # of libjpeg-turbo's N/8 those with vector code
# By how much a scaled image stays larger than the row. At 1.5 the pixels are 0.2 grey levels from
# those of a full decode and resample in the mean, 0.8 in the worst photograph (BUILD_NOTES.md).
_MARGIN = 1.5
_FAST_MARGIN = 1.0
_scratch = threading.local()

# Pillow would give its memory back after every image, and page it in anew for the next: half a
# millisecond each. An image, the one between the two passes, and the result, in each thread.
Image.core.set_blocks_max(max(Image.core.get_blocks_max(), 3 * (os.cpu_count() or 1)))


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """How encoded images become one array.

    Attributes:
      size: (height, width) of every image in the batch, in pixels.
      fit: what brings an image of another size to `size`: "crop" (fill the frame, cut off the rest,
        centred) or "pad" (fit inside, black around), both with the aspect kept and antialiased;
        "native": no resampling, cut a frame out; what is missing of it is the image mirrored.
      fast: trade accuracy for speed: approximate DCT and colour upsampling, and large images
        decoded at 1/2, 1/4 or 1/8 down to just the size. Off, pixels are those that Pillow
        gives, bit for bit, and images are decoded smaller only where half as much again is left.
    """

    size: tuple[int, int]
    fit: str = "crop"
    fast: bool = False

    def __post_init__(self):
        if min(self.size) < 1:
            raise ValueError(f"size must be (height, width) in pixels, got {self.size}")
        if self.fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, got {self.fit!r}")


def scale(height: int, width: int, decoding: DecodeOptions) -> int:
    """1, 2, 4 or 8: by what an image's sides are divided while it is decoded."""
    if decoding.fit == "native":
        return 1
    ratios = height / decoding.size[0], width / decoding.size[1]
    ratio = min(ratios) if decoding.fit == "crop" else max(ratios)  # pixels of the image per pixel of the row
    return next((scale for scale in SCALES if scale * margin(decoding) <= ratio), 1)


def margin(decoding: DecodeOptions) -> float:
    """How many times its size in the row an image must keep to be decoded smaller."""
    return _FAST_MARGIN if decoding.fast else _MARGIN


def decode_jpeg(
    data: bytes,
    height: int,
    width: int,
    decoding: DecodeOptions,
    out: np.ndarray,
    seed: Sequence[int] | None = None,
) -> None:
    """A JPEG of `height` x `width` pixels -> `out`, uint8 [H, W, 3].

    Args:
      seed: two int32, say where "native" cuts; None: in the centre.

    Raises:
      ValueError: it does not decode, or has other sides.
    """
    fast = decoding.fast
    if (height, width) == decoding.size:
        _require(simplejpeg.decode_jpeg(data, "RGB", fast, fast, buffer=out), (height, width))
        return
    divisor = scale(height, width, decoding)
    shape = -(-height // divisor), -(-width // divisor)
    small = shape if divisor > 1 else (0, 0)
    pixels = simplejpeg.decode_jpeg(data, "RGB", fast, fast, *small, buffer=_buffer(shape[0] * shape[1] * 3))
    _require(pixels, shape)
    out[:] = fit_image(pixels, decoding, seed, full=(height, width), scale=divisor)


def fit_image(
    pixels: np.ndarray,
    decoding: DecodeOptions,
    seed: Sequence[int] | None = None,
    *,
    full: tuple[int, int] | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Brings [h, w, 3] uint8 to `decoding.size`; one of that size is not touched.

    Args:
      seed: see `decode_jpeg`.
      full, scale: (height, width) of the image and what its sides were divided by, rounded up, when
        it was decoded; None: it is whole.
    """
    if decoding.fit == "native":
        return _cut_out(pixels, decoding.size, seed)
    height, width = decoding.size
    h, w = full or pixels.shape[:2]
    if pixels.shape[:2] == (height, width) == (h, w):
        return pixels
    picture = Image.fromarray(pixels)
    if decoding.fit == "crop":
        factor = max(height / h, width / w)
        left, top = (w - width / factor) / 2, (h - height / factor) / 2
        box = (max(left, 0), max(top, 0), min(w - left, w), min(h - top, h))
        return _resample(picture, (height, width), box, scale)
    factor = min(height / h, width / w)
    inner = max(1, round(h * factor)), max(1, round(w * factor))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    resized = _resample(picture, inner, (0, 0, w, h), scale)
    canvas[top : top + inner[0], left : left + inner[1]] = resized
    return canvas


def _resample(picture: Image.Image, size: tuple[int, int], box, scale: int) -> np.ndarray:
    """`box` (left, top, right, bottom) in pixels of the whole image -> uint8 [*size, 3]."""
    box = tuple(side / scale for side in box)
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR, box=box))


def _cut_out(pixels: np.ndarray, size: tuple[int, int], seed: Sequence[int] | None) -> np.ndarray:
    starts = corner(pixels.shape[:2], size, seed)
    if all(side >= wanted for side, wanted in zip(pixels.shape, size, strict=False)):
        return pixels[starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]
    rows, columns = (
        mirrored(start + np.arange(wanted), side)
        for start, wanted, side in zip(starts, size, pixels.shape, strict=False)
    )
    return pixels[rows[:, None], columns]


def corner(shape: tuple[int, int], size: tuple[int, int], seed: Sequence[int] | None) -> tuple[int, int]:
    """(top, left) of what "native" cuts out of an image: drawn from its seed, or the centre.

    Along a side that is shorter than the frame, the image lies in the middle: the corner is below 0.
    """
    free = [side - wanted for side, wanted in zip(shape, size, strict=True)]
    if seed is None:
        return free[0] // 2, free[1] // 2
    words = crop_words(*seed)
    return tuple(
        word * (left + 1) >> 32 if left > 0 else left // 2 for word, left in zip(words, free, strict=True)
    )


def mirrored(index, side):
    """Places 0 to side - 1 for places beyond the ends: … 2 1 0 1 2 …, an end is not repeated.

    For ints, and int arrays and tensors alike.
    """
    period = 2 * side - 2 + 1 // side  # 1 for a single pixel
    return side - 1 - abs(index % period - (side - 1))


def crop_words(first, second) -> tuple:
    """Two words of 32 random bits from an image's seeds, for ints and int64 arrays and tensors alike.

    Chris Wellons' "lowbias32" (github.com/skeeto/hash-prospector), with divisions for shifts because
    tensors have no operator for these.
    """

    def mix(word):
        word = (word ^ (word // 2**16)) * 0x7FEB352D % 2**32
        word = (word ^ (word // 2**15)) * 0x846CA68B % 2**32
        return word ^ (word // 2**16)

    base = mix(mix(first % 2**32) ^ (second % 2**32))
    return mix(base ^ 0x9E3779B9), mix(base ^ 0x85EBCA6B)


def _require(pixels: np.ndarray, shape: tuple[int, int]) -> None:
    if pixels.shape[:2] != shape:
        raise ValueError(f"{pixels.shape[:2]} pixels, the index says {shape}")


def _buffer(size: int) -> np.ndarray:
    """Scratch pixels that each thread keeps: paging them in anew takes as long as half the decoding."""
    held = getattr(_scratch, "buffer", None)
    if held is None or held.size < size:
        _scratch.buffer = held = np.empty(size, np.uint8)
    return held
