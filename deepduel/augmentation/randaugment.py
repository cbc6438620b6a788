"""The one place where keras-cv is touched: its layers' base class, and RandAugment without hidden state.

keras-cv's RandAugment draws from generators of its own, so that nothing can be repeated, and takes its
images one after the other. Here its operations (the layers' `augment_images`) are given transformations
drawn from each image's seeds, and all images that drew the same operation go through it together.
These operations do not compile by XLA (ImageProjectiveTransformV3), so this stays outside of `augment`'s
compiled function.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras_cv
import tensorflow as tf
from keras_cv import core

from deepduel.augmentation.draws import FAMILIES, uniforms

AugmentationLayer = keras_cv.layers.VectorizedBaseImageAugmentationLayer

_RATE = 10 / 11  # the paper's fourteen operations hold one that does nothing; keras-cv's default
_STDDEV = 0.15  # of the magnitude, keras-cv's default
_PER_ROUND = 5  # uniforms: whether, which, two of strength, one of sign


def rand_augment(images: tf.Tensor, seeds: tf.Tensor, *, operations: int, magnitude: float) -> tf.Tensor:
    """RandAugment (arXiv 1909.13719) with keras-cv's operations and distributions.

    Args:
      images: float32 [B, H, W, 3] 0..255.
      seeds: int32 [B, 2], one pair per image.
      operations: rounds; in each an image goes through one operation, or with 1/11 through none.
      magnitude: mean strength of an operation, 0..1.

    Returns:
      float32 [B, H, W, 3] 0..255, whole numbers.
    """
    return _function(operations, float(magnitude))(images, seeds)


@functools.lru_cache(maxsize=16)
def _function(operations: int, magnitude: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    with tf.init_scope():  # the layers make variables: a random generator each, which is never used
        layers = _layers(magnitude)

    @tf.function  # keras-cv's code needs AutoGraph, which callers may have switched off
    def run(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        drawn = uniforms(seeds, operations * _PER_ROUND, family=FAMILIES["rand_augment"])
        for number in range(operations):
            uniform = drawn[:, number * _PER_ROUND : (number + 1) * _PER_ROUND]
            chosen = tf.cast(uniform[:, 1] * len(layers), tf.int32)
            chosen = tf.where(uniform[:, 0] < _RATE, chosen, len(layers))
            images = _one_round(images, chosen, uniform[:, 2:], layers)
        return tf.round(images)

    return run


def _one_round(images: tf.Tensor, chosen: tf.Tensor, uniform: tf.Tensor, layers: list[Any]) -> tf.Tensor:
    """Each image through the layer whose number it has chosen; through none with a number beyond."""
    # Whole numbers, as the paper's operations on 8-bit pictures have them: their sums are exact in
    # float32, so that the others of a group do not show in an image.
    images = tf.round(images)
    places = [tf.cast(tf.where(chosen == number)[:, 0], tf.int32) for number in range(len(layers) + 1)]
    parts = [_applied(layer, images, uniform, place) for layer, place in zip(layers, places, strict=False)]
    parts.append(tf.gather(images, places[-1]))
    joined = tf.gather(tf.concat(parts, axis=0), tf.argsort(tf.concat(places, axis=0)))
    return tf.ensure_shape(joined, images.shape)


def _applied(layer: Any, images: tf.Tensor, uniform: tf.Tensor, place: tf.Tensor) -> Callable[[], tf.Tensor]:
    part, drawn = tf.gather(images, place), tf.gather(uniform, place)

    def apply() -> tf.Tensor:
        out = layer.augment_images(part, transformations=_transformations(layer, drawn))
        return tf.ensure_shape(tf.cast(out, tf.float32), part.shape)

    return tf.cond(tf.size(place) > 0, apply, lambda: part)  # equalization cannot take no image


def _transformations(layer: Any, uniform: tf.Tensor) -> Any:
    """What the layer's `get_random_transformation_batch` would draw, from uniforms [n, 3]."""
    first, second, sign = (uniform[:, k, None] for k in range(3))
    sign = tf.where(sign < 0.5, 1.0, -1.0)
    pixelwise = lambda values: values[:, :, None, None]
    layers = keras_cv.layers
    if isinstance(layer, layers.Solarization):
        return {
            "additions": pixelwise(_quantile(layer.addition_factor, first)),
            "thresholds": pixelwise(_quantile(layer.threshold_factor, second)),
        }
    if isinstance(layer, (layers.RandomColorDegeneration, layers.RandomContrast)):
        return pixelwise(_quantile(layer.factor, first))
    if isinstance(layer, layers.RandomBrightness):
        low, high = layer.value_range
        return pixelwise(_quantile(layer.factor, first)) * float(high - low)
    if isinstance(layer, layers.RandomShear):
        factors = {"shear_x": layer.x_factor, "shear_y": layer.y_factor}
        return {  # None saves resampling the image for a shear by 0
            name: None if _is_zero(factor) else _quantile(factor, first) * sign
            for name, factor in factors.items()
        }
    if isinstance(layer, layers.RandomTranslation):
        height = layer.height_lower + first * (layer.height_upper - layer.height_lower)
        width = layer.width_lower + first * (layer.width_upper - layer.width_lower)
        return {"height_translations": height, "width_translations": width}
    return None  # auto contrast, equalization


def _is_zero(factor: Any) -> bool:
    return isinstance(factor, core.ConstantFactorSampler) and factor.value == 0


def _quantile(factor: Any, uniform: tf.Tensor) -> tf.Tensor:
    """Where a keras-cv FactorSampler's distribution function is `uniform`."""
    if isinstance(factor, core.ConstantFactorSampler):
        return tf.ones_like(uniform) * factor.value
    if isinstance(factor, core.UniformFactorSampler):
        return factor.lower + uniform * (factor.upper - factor.lower)
    middle = tf.clip_by_value(tf.cast(uniform, tf.float64), 2.0**-25, 1 - 2.0**-25)
    normal = tf.cast(tf.math.ndtri(middle), tf.float32)
    return tf.clip_by_value(factor.mean + factor.stddev * normal, factor.min_value, factor.max_value)


@functools.lru_cache(maxsize=16)
def _layers(magnitude: float) -> list:
    """The ten layers of keras-cv's policy, in its order."""
    layers = keras_cv.layers.RandAugment.get_standard_policy((0, 255), magnitude, _STDDEV)
    for layer in layers:
        layer.dtype_policy = "float32"  # whatever the global policy: values go to 255, and 1/256 matters
    return layers
