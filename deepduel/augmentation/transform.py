"""Augmentation on the device: uint8 [B, H, W, 3] in, float32 [B, S, S, 3] 0..255 out.

    seeds int32 [B, 2] --draw--> parameters [B] --apply_transform--> pixels

Rotation, shifts, shear, zoom, flips, crop and the resize to the model's input are one sampling (`warp`);
channel shift, brightness, blur and JPEG follow (`photometric`). `augment` does it in functions compiled by
XLA: one for everything up to brightness, and one each for blur and JPEG. The model is not compiled with them,
because XLA makes convolutions much slower on a CPU. `random_warp.RandomWarp` is the same as a keras-cv layer.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from deepduel.augmentation import antialias, photometric, warp
from deepduel.augmentation.draws import draw, draw_pixel_changes
from deepduel.augmentation.options import Augmentation, check_crop
from deepduel.augmentation.packed_pixels import PackedPixels

_PIXEL_PARAMETERS = frozenset(("channel_shift_intensity", "brightness", "blur_sigma", "jpeg_quality"))
_PARAMETERS = warp.WARP_PARAMETERS | warp.EXACT_PARAMETERS | _PIXEL_PARAMETERS


def apply_transform(
    images: tf.Tensor,
    parameters: Mapping[str, object],
    *,
    size: int | tuple[int, int] | None = None,
    crop_size: int = 0,
    blur_radius: int = 6,
    fill_mode: str = "nearest",
    cval: float = 0.0,
) -> tf.Tensor:
    """Transforms images by given parameters, in the order and with the meaning of ImageDataGenerator.

    Each pixel equals that of ImageDataGenerator.apply_transform up to the rounding of the interpolation
    weights to 1/256 (a thousand draws on photographs: mean difference 0.02, worst draw 0.05 grey levels). On
    images that are not square two things differ on purpose: the centre is the centre of the image (Keras
    swaps its two coordinates), and quarter turns are an error.

    Args:
      images: [B, H, W, C], uint8 or float, 0..255, of static height and width.
      parameters: {name: scalar or [B]}; absent parameters and None change nothing.
        theta, shear: degrees.
        tx, ty: pixels along the columns and the rows, from output to input.
        zx, zy: factors along the columns and the rows, above 1 shrinks the picture; clipped to 16.
        flip_horizontal, flip_vertical: 0 or 1.
        channel_shift_intensity: grey levels, added within the image's own range of values.
        brightness: factor from 0.
        quarter_turns: 0 to 3, counter-clockwise.
        shift_y, shift_x: whole pixels down and right.
        crop_top, crop_left: pixels, with `crop_size`.
        blur_sigma: standard deviation in pixels of the output.
        jpeg_quality: 1 to 100; 0 does not compress.
      size: side or (height, width) of the output in pixels; None keeps the size of the crop or the images.
        If it is at most half the input, blocks of pixels are averaged first, so that no pixel is skipped.
      crop_size: side in pixels of the square at crop_top and crop_left; 0 for the whole image.
      blur_radius: taps of the blur to each side, in pixels; three times the largest blur_sigma.
      fill_mode: pixels outside the image, see `Augmentation`.
      cval: grey level outside the image with fill_mode="constant".

    Returns:
      float32 [B, size, size, C] 0..255.

    Raises:
      ValueError: a parameter is unknown, the images have no static size or are smaller than the crop, or
        quarter turns meet images or crops that are not square.

    Example:
      >>> apply_transform(tf.zeros([8, 32, 32, 3], tf.uint8), {"theta": 30.0, "zx": 0.8}, size=24).shape
      TensorShape([8, 24, 24, 3])
    """
    images = tf.convert_to_tensor(images)
    parameters = {name: value for name, value in parameters.items() if value is not None}
    _check(images, parameters)
    frame, size = _frame_and_size(images, crop_size, size)
    pixels = _move_pixels(images, parameters, frame, size, fill_mode=fill_mode, cval=cval)
    return _change_pixels(pixels, parameters, blur_radius)


def _frame_and_size(
    images: tf.Tensor, crop_size: int, size: int | tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the crop, or of the images, and of the output."""
    height, width = images.shape[1:3]
    check_crop(crop_size, height, width)
    frame = (crop_size, crop_size) if crop_size else (height, width)
    return frame, frame if size is None else as_pair(size)


def _move_pixels(
    images: tf.Tensor,
    parameters: Mapping[str, Any],
    frame: tuple[int, int],
    size: tuple[int, int],
    *,
    packed: bool = False,
    **fill: Any,
) -> tf.Tensor:
    """The warp, the crop to `frame` and the resize to `size`, in one sampling.

    `packed`: whether to sample packed pixels where it pays, see `warp.sample_bilinear`.
    """
    matrix = warp.inverse_map(parameters, tf.shape(images)[0], frame, size)
    if warp.is_exact(parameters, frame, size):
        return warp.sample_exact(images, matrix, size, **fill)
    factors = max(1, frame[0] // size[0]), max(1, frame[1] // size[1])
    if factors != (1, 1):
        images = warp.shrink(images, factors)
        matrix = _in_blocks(matrix, factors)
    packed = packed and PackedPixels.pays(images, size)
    return warp.sample_bilinear(images, matrix, size, margins=_margins(frame, size), packed=packed, **fill)


def _change_pixels(pixels: tf.Tensor, parameters: Mapping[str, Any], blur_radius: int) -> tf.Tensor:
    """Channel shift, brightness, blur and JPEG, of those that have a parameter, in this order."""
    batch = tf.shape(pixels)[0]
    values = {
        name: tf.broadcast_to(tf.cast(value, tf.float32), [batch])
        for name, value in parameters.items()
        if name in _PIXEL_PARAMETERS
    }
    if "channel_shift_intensity" in values:
        pixels = photometric.channel_shift(pixels, values["channel_shift_intensity"])
    if "brightness" in values:
        pixels = photometric.brightness(pixels, values["brightness"])
    if "blur_sigma" in values:
        pixels = photometric.blur(pixels, values["blur_sigma"], blur_radius)
    if "jpeg_quality" in values:
        pixels = photometric.jpeg(pixels, values["jpeg_quality"])
    return pixels


def _check(images: tf.Tensor, parameters: Mapping[str, Any]) -> None:
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; must be one of {', '.join(sorted(_PARAMETERS))}")
    if images.shape.rank != 4 or None in images.shape[1:]:
        raise ValueError(f"images must be [B, H, W, C] with static H, W and C, got {images.shape}")


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Side or (height, width) -> (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _margins(frame: tuple[int, int], size: tuple[int, int]) -> Any:
    """How far the outermost centres of an enlarged output lie outside those of the input, in input pixels."""
    return tuple(
        (1 - side / target) / 2 + 0.01 if side < target else 0.0
        for side, target in zip(frame, size, strict=True)
    )


def _in_blocks(matrix: tf.Tensor, factors: tuple[int, int]) -> Any:
    """The matrix for an input of blocks of factors[0] x factors[1] pixels."""
    rows, columns = factors
    scale = tf.constant([1 / rows] * 3 + [1 / columns] * 3, tf.float64)
    offset = tf.constant([0, 0, (1 / rows - 1) / 2, 0, 0, (1 / columns - 1) / 2], tf.float64)
    return matrix * scale + offset


def resize(images: tf.Tensor, size: int | tuple[int, int] | None, *, crop_size: int = 0) -> tf.Tensor:
    """Images without augmentation: a crop of the centre, then a bilinear resize.

    The resize is that of `tf.image.resize`, with antialiasing if it shrinks to less than two thirds, below
    which bilinear sampling alone begins to skip pixels. Images that have the size already are only cast.

    Args:
      images: [B, H, W, C], uint8 or float, of static height and width.
      size: side or (height, width) of the output in pixels; None keeps the size of the crop or the images.
      crop_size: side in pixels of the square that is cut out of the centre; 0 for the whole image.

    Returns:
      float32 [B, size, size, C], in the range of the input.

    Raises:
      ValueError: the images have no static size or are smaller than the crop.

    Example:
      >>> resize(tf.zeros([8, 32, 32, 3], tf.uint8), 24, crop_size=28).shape
      TensorShape([8, 24, 24, 3])
    """
    images = tf.convert_to_tensor(images)
    _check(images, {})
    height, width = images.shape[1:3]
    if crop_size:
        check_crop(crop_size, height, width)
        top, left = (height - crop_size) // 2, (width - crop_size) // 2
        images = images[:, top : top + crop_size, left : left + crop_size]
        height = width = crop_size
    size = (height, width) if size is None else as_pair(size)
    if size == (height, width):
        return tf.cast(images, tf.float32)
    shrinks = any(3 * target < 2 * side for side, target in zip((height, width), size, strict=True))
    if shrinks and tf.config.list_logical_devices("GPU"):
        return antialias.resize(images, size)
    return tf.image.resize(images, size, antialias=shrinks)


def augment(
    images: tf.Tensor,
    seeds: tf.Tensor,
    augmentation: Augmentation,
    size: int | tuple[int, int] | None,
) -> tf.Tensor:
    """Augments images with parameters drawn from their seeds, in functions compiled by XLA.

    An image's parameters depend on its seeds alone, not on the batch. RandAugment, if it is on, comes last
    and is not compiled (see `randaugment`).

    Args:
      images: [B, H, W, 3], uint8 (fastest) or float, 0..255, of static height and width.
      seeds: int32 [B, 2], one pair per image.
      augmentation: the ranges that parameters are drawn from.
      size: side or (height, width) of the output in pixels; None keeps the size of the crop or the images.

    Returns:
      float32 [B, size, size, 3] 0..255.

    Raises:
      ValueError: the images have no static size or are smaller than the crop, or quarter turns meet images
        or crops that are not square.

    Example:
      >>> images = tf.zeros([8, 32, 32, 3], tf.uint8)
      >>> seeds = tf.stack([tf.zeros(8, tf.int32), tf.range(8)], axis=1)
      >>> augment(images, seeds, Augmentation(rotation_range=15, horizontal_flip=True), 24).shape
      TensorShape([8, 24, 24, 3])
    """
    if augmentation.is_identity:
        return resize(images, size)
    out = _warped(augmentation, None if size is None else as_pair(size))(images, seeds)
    if augmentation.blur_sigma is not None:
        out = _blurred(augmentation)(out, seeds)
    if augmentation.jpeg_quality is not None:
        out = _compressed(augmentation)(out, seeds)
    if augmentation.rand_augment:
        from deepduel.augmentation import randaugment  # imports keras-cv: half a second

        out = randaugment.rand_augment(
            out,
            seeds,
            operations=augmentation.rand_augment,
            magnitude=float(augmentation.rand_augment_magnitude),
        )
    return out


def _compiled(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True, autograph=False)  # AutoGraph takes seconds for nothing


@functools.lru_cache(maxsize=64)
def _warped(augmentation: Augmentation, size: tuple[int, int] | None) -> Callable:
    """Everything up to brightness."""

    @_compiled
    def warped(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        _check(images, {})
        parameters = draw(augmentation, seeds, *images.shape[1:3])
        for later in ("blur_sigma", "jpeg_quality"):
            parameters.pop(later, None)
        frame, target = _frame_and_size(images, augmentation.crop_size, size)
        fill = {"fill_mode": augmentation.fill_mode, "cval": augmentation.cval}
        packed = not tf.config.list_logical_devices("GPU")
        pixels = _move_pixels(images, parameters, frame, target, packed=packed, **fill)
        return _change_pixels(pixels, parameters, blur_radius=0)

    return warped


# Functions of their own: compiled into one, XLA repeats the warp for every tap of the blur, and the blur for
# every plane of the JPEG, which takes twice as long on a CPU.
@functools.lru_cache(maxsize=64)
def _blurred(augmentation: Augmentation) -> Callable:
    @_compiled
    def draw_and_blur(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        sigma = draw_pixel_changes(augmentation, seeds)["blur_sigma"]
        return photometric.blur(images, sigma, _blur_radius(augmentation))

    return draw_and_blur


@functools.lru_cache(maxsize=64)
def _compressed(augmentation: Augmentation) -> Callable:
    @_compiled
    def draw_and_compress(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        return photometric.jpeg(images, draw_pixel_changes(augmentation, seeds)["jpeg_quality"])

    return draw_and_compress


def _blur_radius(augmentation: Augmentation) -> int:
    return 0 if augmentation.blur_sigma is None else -int(-3 * augmentation.blur_sigma[1] // 1)
