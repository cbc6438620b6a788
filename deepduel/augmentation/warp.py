"""The geometric kernel: the place of each output pixel in the input image, and one sampling there.

    parameters [B] --inverse_map--> matrix float64 [B, 6] --sample--> float32 [B, h, w, C]

The matrix maps output to input: row = m0·i + m1·j + m2, column = m3·i + m4·j + m5, in pixels, for
output row i and column j. It combines rotation, shifts, shear, zoom, flips, quarter turns, crop and the
resize to the output's size, so that pixels are interpolated once, or not at all if none of these needs
it (`is_exact`).

Coordinates are fixed-point int32 and weights are multiples of 1/256. For 8-bit images each operation on
them is exact in float32, so the result has the same bits eagerly, compiled, on any device and in any batch.
Pixels are gathered whole, as three bytes or as one number (`packed_pixels`), because XLA fuses such gathers
into one vectorised loop. TensorFlow's `ImageProjectiveTransformV3` cannot be compiled by XLA, and gathers of
single bytes are not vectorised.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepduel.augmentation.options import MAX_ZOOM
from deepduel.augmentation.packed_pixels import PackedPixels

_Line = list[Any]  # coefficients of x, y and 1
MAX_SHIFT = 4.0  # image sides; beyond it fixed-point coordinates could leave their range of 32
_WEIGHT_BITS = 8
_RANGE_BITS = 26  # leaves 2**5 image sides on each side of zero in an int32

EXACT_PARAMETERS = frozenset(
    ("flip_horizontal", "flip_vertical", "quarter_turns", "shift_y", "shift_x", "crop_top", "crop_left")
)
WARP_PARAMETERS = frozenset(("theta", "tx", "ty", "shear", "zx", "zy"))


def is_exact(parameters: Mapping, frame: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether output pixels are input pixels: nothing that interpolates, and no resize."""
    return frame == size and not WARP_PARAMETERS & parameters.keys()


def inverse_map(
    parameters: Mapping[str, tf.Tensor], batch: tf.Tensor, frame: tuple[int, int], size: tuple[int, int]
) -> tf.Tensor:
    """The matrix from output to input pixels.

    The warp is that of ImageDataGenerator: rotation · shift · shear · zoom about the centre
    (keras/src/legacy/preprocessing/image.py, `apply_affine_transform`), then flips. On images that are not
    square Keras swaps the two coordinates of the centre, which this function does not.

    Args:
      parameters: {name: scalar or [B]}, see `transform.apply_transform`.
      batch: int32 scalar, B.
      frame: (height, width) of the image, or of the crop, in pixels.
      size: (height, width) of the output in pixels.

    Returns:
      float64 [B, 6].

    Raises:
      ValueError: quarter turns of images that are not square.
    """
    if "quarter_turns" in parameters and frame[0] != frame[1]:
        raise ValueError(f"quarter turns need square images, not {frame[0]}x{frame[1]}; set crop_size")

    def get(name: str, default: float, limit: float | None = None) -> tf.Tensor:
        value = tf.cast(parameters.get(name, default), tf.float64)
        value = value if limit is None else tf.clip_by_value(value, -limit, limit)
        return tf.broadcast_to(value, [batch])

    middle_row, middle_column = (frame[0] - 1) / 2, (frame[1] - 1) / 2
    one, zero = tf.ones([batch], tf.float64), tf.zeros([batch], tf.float64)
    # v and u, row and column, are linear functions of the output's (i, j) with three coefficients each. They
    # begin with the resize, with half-pixel centres, about the centre.
    row_scale, column_scale = frame[0] / size[0], frame[1] / size[1]
    v = [one * row_scale, zero, one * (row_scale - frame[0]) / 2]
    u = [zero, one * column_scale, one * (column_scale - frame[1]) / 2]
    v = _times(1 - 2 * get("flip_vertical", 0.0), v)
    u = _times(1 - 2 * get("flip_horizontal", 0.0), u)
    if "quarter_turns" in parameters:
        u, v = _rotate(*_quarter_turn(get("quarter_turns", 0.0)), u, v)
    if WARP_PARAMETERS & parameters.keys():
        zx, zy = get("zx", 1.0, MAX_ZOOM), get("zy", 1.0, MAX_ZOOM)
        shear, theta = (get(name, 0.0) * (math.pi / 180) for name in ("shear", "theta"))
        reach = MAX_SHIFT * max(frame)
        u, v = _times(zx, u), _times(zy, v)
        u, v = _plus(u, _times(-tf.sin(shear), v)), _times(tf.cos(shear), v)
        u = [u[0], u[1], u[2] + get("tx", 0.0, reach)]
        v = [v[0], v[1], v[2] + get("ty", 0.0, reach)]
        u, v = _rotate(tf.cos(theta), tf.sin(theta), u, v)
    reach = MAX_SHIFT * max(frame)
    v[2] += middle_row + get("crop_top", 0.0) - get("shift_y", 0.0, reach)
    u[2] += middle_column + get("crop_left", 0.0) - get("shift_x", 0.0, reach)
    return tf.stack(v + u, axis=-1)


def _times(factor: tf.Tensor, line: _Line) -> _Line:
    return [factor * value for value in line]


def _plus(one: _Line, other: _Line) -> _Line:
    return [a + b for a, b in zip(one, other, strict=True)]


def _rotate(cosine: tf.Tensor, sine: tf.Tensor, u: _Line, v: _Line) -> tuple[_Line, _Line]:
    return _plus(_times(cosine, u), _times(-sine, v)), _plus(_times(sine, u), _times(cosine, v))


def _quarter_turn(turns: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cosine and sine of turns · 90 degrees as exact integers, so that pixels are not interpolated."""
    turns = tf.math.floormod(tf.round(turns), 4.0)
    is_turn = lambda k: tf.cast(tf.equal(turns, k), tf.float64)
    return is_turn(0.0) - is_turn(2.0), is_turn(1.0) - is_turn(3.0)


def sample_exact(
    images: tf.Tensor,
    matrix: tf.Tensor,
    size: tuple[int, int],
    *,
    fill_mode: str = "nearest",
    cval: float = 0.0,
) -> tf.Tensor:
    """Copies pixels without interpolation: output[b, i, j] = images[b, row, column].

    Args:
      images: [B, H, W, C], any dtype.
      matrix: float64 [B, 6] of integers, from `inverse_map`.
      size: (h, w) of the output in pixels.
      fill_mode: pixels outside the image, see `sample_bilinear`.
      cval: grey level outside the image with fill_mode "constant".

    Returns:
      float32 [B, h, w, C].
    """
    row, column = _coordinates(matrix, size, 0)
    height, width = images.shape[1:3]
    inside = _inside(row, height, 0) & _inside(column, width, 0)
    row, column = _fold(row, height, 0, fill_mode), _fold(column, width, 0, fill_mode)
    out = tf.cast(_pixels(images, row, column), tf.float32)
    return tf.where(inside[..., None], out, cval) if fill_mode == "constant" else out


def sample_bilinear(
    images: tf.Tensor,
    matrix: tf.Tensor,
    size: tuple[int, int],
    *,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    margins: tuple[float, float] = (0.0, 0.0),
    packed: bool = False,
) -> tf.Tensor:
    """Interpolates bilinearly between the four pixels around each place.

    Args:
      images: [B, H, W, C], uint8 or float.
      matrix: float64 [B, 6], from `inverse_map`.
      size: (h, w) of the output in pixels.
      fill_mode: pixels outside the centres of the outermost pixels, as in `scipy.ndimage.affine_transform`
        and ImageDataGenerator: "nearest" repeats the edge, "reflect" mirrors the image at its edge, "wrap"
        repeats it with a period of one pixel less than the side, "constant" is `cval`.
      cval: grey level outside the image with fill_mode "constant".
      margins: pixels by which the image's edge is extended, down and across, before fill_mode begins.
      packed: whether to read each pixel as one number, which takes a third less time if XLA compiles it for a
        CPU. The result is the same. See `PackedPixels`.

    Returns:
      float32 [B, h, w, C], for uint8 images exact multiples of 2**-16.

    Raises:
      ValueError: a side has 131,072 pixels or more.
    """
    height, width = images.shape[1:3]
    fraction_bits = _RANGE_BITS - int(max(height, width, *size)).bit_length()
    if fraction_bits <= _WEIGHT_BITS:
        raise ValueError(f"images of {height}x{width} to {size[0]}x{size[1]}: sides must be below 131,072")
    # Half a weight step, so that truncating the lower bits rounds to the nearest weight.
    offset = 1 << (fraction_bits - _WEIGHT_BITS - 1)
    row, column = _coordinates(matrix, size, fraction_bits, offset)
    reach = [int(np.ceil(margin * (1 << fraction_bits))) for margin in margins]
    inside = _inside(row - offset, height, fraction_bits, reach[0])
    inside &= _inside(column - offset, width, fraction_bits, reach[1])
    row = _fold(row, height, fraction_bits, fill_mode, offset, reach[0])
    column = _fold(column, width, fraction_bits, fill_mode, offset, reach[1])
    top, left = _shift_right(row, fraction_bits), _shift_right(column, fraction_bits)
    bottom, right = tf.minimum(top + 1, height - 1), tf.minimum(left + 1, width - 1)
    down, across = _weight(row, fraction_bits), _weight(column, fraction_bits)

    pixels = PackedPixels(images, size) if packed else None

    def corner(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return pixels.at(y, x) if pixels else tf.cast(_pixels(images, y, x), tf.float32)

    upper, lower = corner(top, left), corner(bottom, left)
    upper += (corner(top, right) - upper) * across
    lower += (corner(bottom, right) - lower) * across
    out = upper + (lower - upper) * down
    out = pixels.fetch_next(out) if pixels else out
    return tf.where(inside[..., None], out, cval) if fill_mode == "constant" else out


def _inside(coordinate: tf.Tensor, side: int, bits: int, reach: int = 0) -> tf.Tensor:
    return (coordinate >= -reach) & (coordinate <= ((side - 1) << bits) + reach)


def _fold(
    coordinate: tf.Tensor, side: int, bits: int, fill_mode: str, offset: int = 0, reach: int = 0
) -> tf.Tensor:
    """Maps fixed-point coordinates, which contain `offset`, into 0..side - 1, as scipy's map_coordinate."""
    last = (side - 1) << bits
    if fill_mode == "reflect":
        period = (2 * side) << bits
        coordinate = tf.math.floormod(coordinate, period)
        mirrored = ((2 * side - 1) << bits) + 2 * offset - coordinate
        coordinate = tf.minimum(coordinate, mirrored)
    elif fill_mode == "wrap" and side > 1:
        place = coordinate - offset
        before = last - tf.math.floormod(-place, last)
        after = tf.where(place > last + reach, tf.math.floormod(place, last), place)
        coordinate = tf.where(place < -reach, before, after) + offset
    return tf.clip_by_value(coordinate, 0, last)


def _coordinates(
    matrix: tf.Tensor, size: tuple[int, int], fraction_bits: int, offset: int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Fixed-point int32 [B, h, w] rows and columns of all output pixels."""
    fixed = tf.cast(tf.round(matrix * float(1 << fraction_bits)), tf.int32)
    i = tf.range(size[0], dtype=tf.int32)[None, :, None]
    j = tf.range(size[1], dtype=tf.int32)[None, None, :]
    m = [fixed[:, k, None, None] for k in range(6)]
    return m[0] * i + (m[2] + offset) + m[1] * j, m[3] * i + (m[5] + offset) + m[4] * j


def _shift_right(values: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(values, tf.constant(bits, values.dtype))


def _weight(coordinate: tf.Tensor, fraction_bits: int) -> tf.Tensor:
    """float32 [B, h, w, 1] in [0, 1), a multiple of 1/256."""
    bits = tf.bitwise.bitwise_and(_shift_right(coordinate, fraction_bits - _WEIGHT_BITS), np.int32(255))
    return (tf.cast(bits, tf.float32) * (1 / 256))[..., None]


def _pixels(images: tf.Tensor, row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
    """images[b, row[b], column[b]]: [B, h, w, C]."""
    batch = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    h, w = row.shape[1:]
    flat = tf.reshape(images, [batch, height * width, channels])
    index = tf.reshape(row * width + column, [batch, h * w])
    return tf.reshape(tf.gather(flat, index, batch_dims=1), [batch, h, w, channels])


def shrink(images: tf.Tensor, factors: tuple[int, int]) -> tf.Tensor:
    """Averages blocks of factors[0] x factors[1] pixels; the last blocks repeat the image's edge.

    Args:
      images: [B, H, W, C], any dtype.
      factors: positive integers, down and across.

    Returns:
      float32 [B, ceil(H / factors[0]), ceil(W / factors[1]), C].
    """
    batch = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    tall, wide = (math.ceil(side / factor) for side, factor in zip((height, width), factors, strict=True))
    rows = np.minimum(np.arange(tall * factors[0]), height - 1)
    columns = np.minimum(np.arange(wide * factors[1]), width - 1)
    images = tf.cast(images, tf.float32)
    if len(rows) > height:
        images = tf.gather(images, rows, axis=1)
    if len(columns) > width:
        images = tf.gather(images, columns, axis=2)
    images = tf.reshape(images, [batch, tall, factors[0], wide, factors[1], channels])
    return tf.reduce_mean(images, axis=(2, 4))
