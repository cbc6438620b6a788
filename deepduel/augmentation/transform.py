"""Augmentation on the device: uint8 [B, H, W, 3] in, float32 [B, S, S, 3] 0..255 out.

    seeds int32 [B, 2] --draw--> parameters [B] --apply_transform--> pixels

Rotation, shifts, shear, zoom, flips, crop and the resize to the model's input are one sampling
(deepduel.warp); then brightness, blur and JPEG (deepduel.degrade). `augment` does it all, compiled
by XLA by itself: XLA is ruinous for a model's convolutions on a CPU, so it must not spread to the
model. `RandomWarp` is the same as a keras-cv layer.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from deepduel.augmentation import photometric, randaugment, warp
from deepduel.augmentation.draws import draw, uniforms
from deepduel.augmentation.options import PRESETS, Augmentation, check_crop

__all__ = [
    "PRESETS",
    "Augmentation",
    "RandomWarp",
    "apply_transform",
    "augment",
    "draw",
    "resize",
    "uniforms",
]

_PIXEL_PARAMETERS = frozenset(("channel_shift_intensity", "brightness", "blur_sigma", "jpeg_quality"))
_PARAMETERS = warp.WARP_PARAMETERS | warp.EXACT_PARAMETERS | _PIXEL_PARAMETERS
_UNSUPPORTED = ("bounding_boxes", "keypoints", "segmentation_masks")


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
    """Applies given parameters, in ImageDataGenerator.apply_transform's order and meaning.

    Pixel by pixel the result is ImageDataGenerator's up to the rounding of the interpolation's
    weights to 1/256 (a thousand draws on photographs: mean difference 0.02, worst draw 0.05 grey
    levels). Two deliberate differences on images that are not square: the centre is the image's
    (Keras swaps its two coordinates), and quarter turns are refused.

    Args:
      images: [B, H, W, C], uint8 or float, 0..255; H and W must be known statically.
      parameters: each a scalar or one value per image [B]; absent ones (or None) leave the image as it is.
        theta: degrees. tx, ty: pixels, along the columns and the rows, from output to input.
        shear: degrees. zx, zy: factors along the columns and the rows, above 1 shrinks the picture;
        counted as 16 beyond 16. flip_horizontal, flip_vertical: 0 or 1. channel_shift_intensity: grey
        levels, added within the image's own range. brightness: factor from 0.
        quarter_turns: 0 to 3, counter-clockwise. shift_y, shift_x: whole pixels down and right.
        crop_top, crop_left: pixels, with `crop_size`. blur_sigma: pixels of the output.
        jpeg_quality: 1 to 100, 0 for none.
      size: side or (height, width) of the output in pixels; the crop's or the images' own when None.
        Where it is at most half the input, blocks of pixels are averaged first, so that nothing is
        skipped.
      crop_size: side of the square that crop_top and crop_left cut out; 0 for the whole image.
      blur_radius: taps of the blur to each side; three times the largest sigma.
      fill_mode: what lies outside the image, see `Augmentation`.
      cval: grey level outside the image with fill_mode="constant".

    Returns:
      float32 [B, size, size, C] 0..255.

    Raises:
      ValueError: an unknown parameter, images without static size, a crop that does not fit.
    """
    images = tf.convert_to_tensor(images)
    parameters = {name: value for name, value in parameters.items() if value is not None}
    _check(images, parameters)
    height, width = images.shape[1:3]
    frame = (crop_size, crop_size) if crop_size else (height, width)
    check_crop(crop_size, height, width)
    size = frame if size is None else _pair(size)
    batch = tf.shape(images)[0]
    matrix = warp.inverse_map(parameters, batch, frame, size)
    if warp.is_exact(parameters, frame, size):
        out = warp.sample_exact(images, matrix, size, fill_mode=fill_mode, cval=cval)
    else:
        factors = tuple(max(1, side // target) for side, target in zip(frame, size, strict=True))
        if factors != (1, 1):
            images = warp.shrink(images, factors)
            matrix = _in_blocks(matrix, factors)
        out = warp.sample_bilinear(
            images, matrix, size, fill_mode=fill_mode, cval=cval, margins=_margins(frame, size)
        )

    def per_image(name: str) -> tf.Tensor:
        return tf.broadcast_to(tf.cast(parameters[name], tf.float32), [batch])

    if "channel_shift_intensity" in parameters:
        out = photometric.channel_shift(out, per_image("channel_shift_intensity"))
    if "brightness" in parameters:
        out = photometric.brightness(out, per_image("brightness"))
    if "blur_sigma" in parameters:
        out = photometric.blur(out, per_image("blur_sigma"), blur_radius)
    if "jpeg_quality" in parameters:
        out = photometric.jpeg(out, per_image("jpeg_quality"))
    return out


def _check(images: tf.Tensor, parameters: Mapping[str, Any]) -> None:
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; known are {', '.join(sorted(_PARAMETERS))}")
    if images.shape.rank != 4 or None in images.shape[1:]:
        raise ValueError(f"images must be [B, H, W, C] with known H, W and C, not {images.shape}")


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _margins(frame: tuple[int, int], size: tuple[int, int]) -> Any:
    """How far the outermost pixels of an enlarged image lie outside it, though not beyond its edge."""
    return tuple(
        (1 - side / target) / 2 + 0.01 if side < target else 0.0
        for side, target in zip(frame, size, strict=True)
    )


def _in_blocks(matrix: tf.Tensor, factors: tuple[int, int]) -> Any:
    """The same places, in coordinates of blocks of factors[0] x factors[1] pixels."""
    rows, columns = factors
    scale = tf.constant([1 / rows] * 3 + [1 / columns] * 3, tf.float64)
    offset = tf.constant([0, 0, (1 / rows - 1) / 2, 0, 0, (1 / columns - 1) / 2], tf.float64)
    return matrix * scale + offset


def resize(images: tf.Tensor, size: int | tuple[int, int] | None, *, crop_size: int = 0) -> tf.Tensor:
    """The image without augmentation: the crop's centre place, then a bilinear resize.

    Images of the right size only change their type. The resize is `tf.image.resize`'s (half-pixel
    centres); with antialias when it shrinks to less than two thirds, below which plain bilinear
    sampling begins to skip pixels.

    Args:
      images: [B, H, W, C], uint8 or float.
      size: side or (height, width) of the output; None keeps the crop's or the images' size.

    Returns:
      float32 [B, size, size, C].
    """
    images = tf.convert_to_tensor(images)
    _check(images, {})
    height, width = images.shape[1:3]
    if crop_size:
        check_crop(crop_size, height, width)
        top, left = (height - crop_size) // 2, (width - crop_size) // 2
        images = images[:, top : top + crop_size, left : left + crop_size]
        height = width = crop_size
    size = (height, width) if size is None else _pair(size)
    if size == (height, width):
        return tf.cast(images, tf.float32)
    antialias = any(3 * target < 2 * side for side, target in zip((height, width), size, strict=True))
    return tf.image.resize(images, size, antialias=antialias)


def augment(
    images: tf.Tensor,
    seeds: tf.Tensor,
    augmentation: Augmentation,
    size: int | tuple[int, int] | None,
) -> tf.Tensor:
    """Draws and applies, compiled by XLA by itself; what happens to an image depends on its seeds alone.

    RandAugment, where it is on, comes last and is not compiled (see `deepduel.augmentation.randaugment`).

    Args:
      images: [B, H, W, 3], uint8 (fastest) or float, 0..255.
      seeds: int32 [B, 2], one pair per image.
      size: side or (height, width) of the output in pixels; None keeps the crop's or the images' size.

    Returns:
      float32 [B, size, size, 3] 0..255.
    """
    if augmentation.at_rest:
        return resize(images, size)
    out = _compiled(augmentation, None if size is None else _pair(size))(images, seeds)
    if augmentation.rand_augment:
        out = randaugment.rand_augment(
            out,
            seeds,
            operations=augmentation.rand_augment,
            magnitude=float(augmentation.rand_augment_magnitude),
        )
    return out


@functools.lru_cache(maxsize=64)
def _compiled(augmentation: Augmentation, size: tuple[int, int] | None) -> Callable:
    @tf.function(jit_compile=True, autograph=False)  # nothing here needs it, and converting takes seconds
    def draw_and_apply(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        parameters = draw(augmentation, seeds, *images.shape[1:3])
        return apply_transform(
            images,
            parameters,
            size=size,
            crop_size=augmentation.crop_size,
            blur_radius=_blur_radius(augmentation),
            fill_mode=augmentation.fill_mode,
            cval=augmentation.cval,
        )

    return draw_and_apply


def _blur_radius(augmentation: Augmentation) -> int:
    return 0 if augmentation.blur_sigma is None else -int(-3 * augmentation.blur_sigma[1] // 1)


@keras.saving.register_keras_serializable(package="deepduel")
class RandomWarp(randaugment.AugmentationLayer):
    """`augment` as a keras-cv layer; other keras-cv layers can follow it.

    Takes an image [H, W, 3], a batch [B, H, W, 3], or a dictionary with "images" and whatever else
    (labels and the rest pass through untouched, whatever the dtype policy). With "seeds" (int32
    [2] or [B, 2]) in the dictionary it is stateless; else it draws seeds from a generator of its own.
    With training=False (as in `predict` and `evaluate`) it only crops the centre and resizes.

    Args:
      size: side or (height, width) of the output in pixels; None keeps the crop's or the images' size.
      seed: of the layer's own generator, any int32, 0 included; None for a different one each time.
      augmentation: an `Augmentation`, or give its fields by name.
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        *,
        name: str | None = None,
        dtype: str | keras.DTypePolicy = "float32",
        **fields: Any,
    ):
        # autocast would turn float labels into the layer's type before `call` sees them.
        super().__init__(name=name, dtype=dtype, autocast=False)
        if augmentation is not None and fields:
            raise ValueError(f"give either augmentation or its fields, not both: {sorted(fields)}")
        self.augmentation = Augmentation(**fields) if augmentation is None else augmentation
        self.size = None if size is None else _pair(size)
        self.seed = seed
        # keras-cv takes seed 0 for no seed and then shares TensorFlow's global generator.
        self._random_generator = (
            tf.random.Generator.from_non_deterministic_state()
            if seed is None
            else tf.random.Generator.from_seed(seed)
        )
        # With jit_compile="auto" Keras would compile the whole model by XLA, convolutions included.
        self.supports_jit = False

    def call(self, inputs: Any, training: bool | None = True) -> Any:
        if isinstance(inputs, Mapping):
            for key in _UNSUPPORTED:
                if key in inputs:
                    raise ValueError(f"RandomWarp moves pixels only: {key!r} would no longer fit them")
            inputs = {**inputs, "images": tf.convert_to_tensor(inputs["images"])}
        else:
            inputs = tf.convert_to_tensor(inputs)  # keras-cv takes a NumPy array for a dictionary
        self._now_training = training
        return super().call(inputs)

    def _ensure_inputs_are_compute_dtype(self, inputs: Any) -> Any:
        return inputs  # uint8 images are a quarter of the bytes, and labels are none of our business

    def _batch_augment(self, inputs: dict[str, Any]) -> dict[str, Any]:
        images = inputs["images"]
        if not self._now_training:
            out = resize(images, self.size, crop_size=self.augmentation.crop_size)
        else:
            seeds = inputs.get("seeds")
            if seeds is None:
                seeds = self._random_generator.uniform_full_int([tf.shape(images)[0], 2], tf.int32)
            out = augment(images, seeds, self.augmentation, self.size)
        return {**inputs, "images": tf.cast(out, self.compute_dtype)}

    def compute_output_shape(self, input_shape: Any) -> Any:
        if isinstance(input_shape, Mapping):
            return {**input_shape, "images": self.compute_output_shape(input_shape["images"])}
        crop = self.augmentation.crop_size
        side = (crop, crop) if crop else tuple(input_shape[-3:-1])
        return (*input_shape[:-3], *(self.size or side), input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        config = {"size": self.size, "seed": self.seed, "name": self.name}
        config["dtype"] = keras.saving.serialize_keras_object(self.dtype_policy)
        return config | dataclasses.asdict(self.augmentation)


RandomWarp.__module__ = "deepduel.augment"  # saved models name the public module
