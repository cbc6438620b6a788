"""One record's image of any size -> one row of a batch, uint8 [H, W, 3].

    "crop", "pad"   decode, as small as libjpeg-turbo can where that does no harm, then one resample
    "native"        decode, then cut out: every pixel of the row is a pixel of the image

The same function decodes in this process and in the worker processes, so the pixels are the same bit for
bit. It needs neither TensorFlow nor the data folder.

libjpeg-turbo leaves out the finer half (three quarters, seven eighths) of each block's frequencies at
no cost, which saves most of the time that a large photograph takes. Images are never decoded smaller than
the row: the rest of the reduction is a resample with an antialiasing (triangle) filter. The ratios that
are no power of two are not used: libjpeg-turbo has no vector code for them, and they save nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import simplejpeg

from deepduel.decoding.resample import library, resample
from tfrecords_tools.errors import UsageError
from tfrecords_tools.images import jpeg, limits
from tfrecords_tools.images.encoding_options import MAX_PIXELS
from tfrecords_tools.images.scratch import scratch
from tfrecords_tools.images.stored import stored_pixels

FITS = ("crop", "pad", "native")
SCALES = (8, 4, 2)  # the reductions for which libjpeg-turbo has vector code
# How much larger than the row a reduced image stays. At 1.5 the pixels differ from those of a full
# decode and resample by 0.2 grey levels on average, 0.8 in the worst photograph (BUILD_NOTES.md).
_MARGIN = 1.5
_FAST_MARGIN = 1.0
SCANS_MATTER = 1 << 34  # pixels times bytes; below, any number of scans takes less than a second


def libraries() -> dict[str, str]:
    """What the pixels depend on besides the options, for the keys of caches and the record of a run.

    Returns:
      {"decoder": version of simplejpeg, "resizer": name and version of the library that resamples}.
    """
    return {"decoder": simplejpeg.__version__, "resizer": library()}


@dataclasses.dataclass(frozen=True)
class DecodeOptions:
    """How encoded images of any size become rows of one array.

    Attributes:
      size: (height, width) of every image in the batch, in pixels.
      fit: how an image of another size is resized to `size`: "crop" (fill the frame, cut off the rest,
        centred) or "pad" (fit inside, black around), both with the aspect ratio kept and antialiased;
        "native": no resampling, cut a frame out; an image smaller than the frame is mirrored at its edges.
      fast: trade accuracy for speed: approximate DCT and colour upsampling, and large images
        decoded at 1/2, 1/4 or 1/8, down to exactly `size`. Off, JPEGs decode to Pillow's pixels, bit for
        bit, and reduced images stay at least 1.5 times as large as `size`. Where images are
        resampled, one value in seven differs from Pillow's by a grey level, see `resample`.
    """

    size: tuple[int, int]
    fit: str = "crop"
    fast: bool = False

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise UsageError(f"size must be (height, width) in pixels, at least 1 each, got {self.size}")
        if self.fit not in FITS:
            raise UsageError(f"fit must be one of {', '.join(FITS)}, got {self.fit!r}")


def decode_image(
    data: bytes | memoryview,
    encoding: str,
    height: int,
    width: int,
    options: DecodeOptions,
    out: np.ndarray,
    seed: Sequence[int] | None = None,
) -> None:
    """Decodes a record's image of `height` x `width` pixels into a row of a batch.

    Args:
      encoding: "jpeg", "png" or "raw".
      out: uint8 [H, W, 3] of `options.size`.
      seed: two int32 from which fit "native" draws its crop; None: the centre.

    Raises:
      ValueError: it does not decode, or has another size.
    """
    if encoding == "jpeg":
        decode_jpeg(data, height, width, options, out, seed)
    else:
        out[:] = resize_image(stored_pixels(data, encoding, height, width), options, seed)


def scale(height: int, width: int, options: DecodeOptions) -> int:
    """1, 2, 4 or 8: the number by which an image's sides are divided while it is decoded."""
    if options.fit == "native":
        return 1
    ratios = height / options.size[0], width / options.size[1]
    ratio = min(ratios) if options.fit == "crop" else max(ratios)  # pixels of the image per pixel of the row
    return next((scale for scale in SCALES if scale * margin(options) <= ratio), 1)


def margin(options: DecodeOptions) -> float:
    """How many times its size in the row an image must keep to be decoded smaller."""
    return _FAST_MARGIN if options.fast else _MARGIN


def decode_jpeg(
    data: bytes | memoryview,
    height: int,
    width: int,
    options: DecodeOptions,
    out: np.ndarray,
    seed: Sequence[int] | None = None,
) -> None:
    """`decode_image` of a JPEG.

    Raises:
      ValueError: it does not decode, or has another size.
    """
    if height * width * len(data) > SCANS_MATTER and (reason := _excess(bytes(data), height, width)):
        raise ValueError(reason)
    fast = options.fast
    if (height, width) == options.size:
        _require(simplejpeg.decode_jpeg(data, "RGB", fast, fast, buffer=out), (height, width))
        return
    divisor = scale(height, width, options)
    shape = -(-height // divisor), -(-width // divisor)
    least = shape if divisor > 1 else (0, 0)
    buffer = scratch(shape[0] * shape[1] * 3)
    pixels = simplejpeg.decode_jpeg(data, "RGB", fast, fast, *least, buffer=buffer)
    _require(pixels, shape)
    out[:] = resize_image(pixels, options, seed, full=(height, width), scale=divisor)


def resize_image(
    pixels: np.ndarray,
    options: DecodeOptions,
    seed: Sequence[int] | None = None,
    *,
    full: tuple[int, int] | None = None,
    scale: int = 1,
) -> np.ndarray:
    """Brings an image to `options.size`; one of that size is returned as it is.

    Args:
      pixels: uint8 [h, w, 3].
      seed: see `decode_image`.
      full, scale: (height, width) of the image and the number by which its sides were divided, rounded
        up, when it was decoded; None: `pixels` is the whole image.

    Returns:
      uint8 [H, W, 3].
    """
    if options.fit == "native":
        return _cut_out(pixels, options.size, seed)
    height, width = options.size
    h, w = full or pixels.shape[:2]
    if pixels.shape[:2] == (height, width) == (h, w):
        return pixels
    if options.fit == "crop":
        factor = max(height / h, width / w)
        left, top = (w - width / factor) / 2, (h - height / factor) / 2
        box = (max(left, 0), max(top, 0), min(w - left, w), min(h - top, h))
        return _resample(pixels, (height, width), box, scale)
    factor = min(height / h, width / w)
    inner = max(1, round(h * factor)), max(1, round(w * factor))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    resized = _resample(pixels, inner, (0, 0, w, h), scale)
    canvas[top : top + inner[0], left : left + inner[1]] = resized
    return canvas


def _resample(
    pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float], scale: int
) -> np.ndarray:
    """`box` (left, top, right, bottom) in pixels of the whole image -> uint8 [*size, 3]."""
    left, top, right, bottom = (side / scale for side in box)
    return resample(pixels, size, (left, top, right, bottom))


def _cut_out(pixels: np.ndarray, size: tuple[int, int], seed: Sequence[int] | None) -> np.ndarray:
    shape = pixels.shape[0], pixels.shape[1]
    starts = corner(shape, size, seed)
    if all(side >= wanted for side, wanted in zip(shape, size, strict=True)):
        return pixels[starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]
    rows, columns = (
        mirrored(start + np.arange(wanted), side)
        for start, wanted, side in zip(starts, size, shape, strict=True)
    )
    return pixels[rows[:, None], columns]


def corner(shape: tuple[int, int], size: tuple[int, int], seed: Sequence[int] | None) -> tuple[int, int]:
    """(top, left) of what "native" cuts out of an image: drawn from its seed, or the centre.

    Along a side that is shorter than the frame, the image lies in the middle: the corner is below 0.
    """
    free = shape[0] - size[0], shape[1] - size[1]
    if seed is None:
        return free[0] // 2, free[1] // 2
    top, left = (
        word * (room + 1) >> 32 if room > 0 else room // 2
        for word, room in zip(crop_words(*seed), free, strict=True)
    )
    return top, left


def mirrored(index: Any, side: Any) -> Any:
    """Indices 0 to side - 1 for indices beyond the ends: … 2 1 0 1 2 …, an end is not repeated.

    For ints, and int arrays and tensors alike.
    """
    period = 2 * side - 2 + 1 // side  # 1 for a single pixel
    return side - 1 - abs(index % period - (side - 1))


def crop_words(first: Any, second: Any) -> tuple[Any, Any]:
    """Two words of 32 random bits from an image's seeds, for ints and int64 arrays and tensors alike.

    Chris Wellons' "lowbias32" (github.com/skeeto/hash-prospector), with divisions for shifts because
    tensors have no operator for these.
    """

    def mix(word: Any) -> Any:
        word = (word ^ (word // 2**16)) * 0x7FEB352D % 2**32
        word = (word ^ (word // 2**15)) * 0x846CA68B % 2**32
        return word ^ (word // 2**16)

    base = mix(mix(first % 2**32) ^ (second % 2**32))
    return mix(base ^ 0x9E3779B9), mix(base ^ 0x85EBCA6B)


def _require(pixels: np.ndarray, shape: tuple[int, int]) -> None:
    if pixels.shape[:2] != shape:
        raise ValueError(f"{pixels.shape[:2]} pixels, the index says {shape}")


def _excess(data: bytes, height: int, width: int) -> str:
    """Why a JPEG takes too much to decode; "" when it does not."""
    if height * width > MAX_PIXELS:
        return f"{width}x{height} pixels: over the limit of {MAX_PIXELS:,} pixels"
    return limits.excessive_scans(data, jpeg.scan(data))
