"""A task's model for other programs: images of any size in, labels and probabilities out.

    images         float32 [B, height, width, 3], RGB, 0..255, of any height and width; uint8 is cast
    probabilities  float32 [B, classes]
    label          string [B], the most probable class

The resizes and crops of a conversion with --image_size, of `decoding.image.resize_image` and of
`augmentation.transform.resize` are inside, one after the other, with the same antialiasing filters. An image
is resampled by two matrix products, one along its columns and one along its rows: `keras.ops` has no resize
of an exact box that LiteRT and ONNX know too. Everything is Keras' own, so that `keras.models.load_model`
needs no import of deepduel.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

_UNKNOWN = "[no class]"  # StringLookup wants a word for what never occurs here, and no class is called so


class Framing(NamedTuple):
    """How an image becomes the input of a model.

    Attributes:
      size: (height, width) in pixels to which images are brought.
      fit: how: "crop", "pad" or "native", see `DecodeOptions`.
      crop_size: side of the square that is cut out of the middle then; 0 for none.
      stored_side, stored_fit: the square to which images were brought before, when they were converted, and
        how, see `EncodingOptions`; 0 for none.
    """

    size: tuple[int, int]
    fit: str
    crop_size: int = 0
    stored_side: int = 0
    stored_fit: str = "resize"


def _triangle(distance: keras.KerasTensor) -> keras.KerasTensor:
    return ops.relu(1.0 - distance)


def _cubic(distance: keras.KerasTensor) -> keras.KerasTensor:
    """Pillow's BICUBIC: Keys' kernel with a = -0.5."""
    near = ops.minimum(distance, 1.0)
    far = ops.clip(distance, 1.0, 2.0)
    return (1.5 * near - 2.5) * near * near + 1.0 + ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0


class _Filter(NamedTuple):
    """How a library resamples.

    Attributes:
      weight: distance, in pixels of the coarser grid -> weight.
      place: rounds the width of the border beside an image that is padded.
    """

    weight: Callable
    place: Callable


_TRIANGLE, _BICUBIC = _Filter(_triangle, ops.floor), _Filter(_cubic, ops.round)


def build(model: keras.Model, framing: Framing, classes: tuple[str, ...]) -> keras.Model:
    """The model with the outputs "label" and "probabilities".

    Args:
      model: maps pixels [B, S, S, 3] to probabilities.
      framing: what its run does to images before.
      classes: label names, in the order of the probabilities.
    """
    core = build_probabilities(model, framing)
    probabilities = core.output
    names = layers.StringLookup(
        vocabulary=list(classes), invert=True, num_oov_indices=0, oov_token=_UNKNOWN, name="label"
    )
    outputs = {"label": names(ops.argmax(probabilities, axis=1)), "probabilities": probabilities}
    return keras.Model(core.input, outputs, name=model.name)


def build_probabilities(model: keras.Model, framing: Framing) -> keras.Model:
    """The same with the probabilities as its only output, for formats that have no strings."""
    images = keras.Input((None, None, 3), name="images")
    pixels = images
    if framing.stored_side:
        stored = (framing.stored_side, framing.stored_side)
        pixels = ops.clip(_resampled(pixels, stored, framing.stored_fit, filter=_BICUBIC), 0, 255)
        pixels = ops.round(pixels)  # as uint8
    pixels = ops.round(_resampled(pixels, framing.size, framing.fit))
    frame = framing.size
    if framing.crop_size:
        frame = framing.crop_size, framing.crop_size
        pixels = layers.CenterCrop(*frame, name="crop")(pixels)
    side = model.input_shape[1]
    if frame != (side, side):
        pixels = _resampled(pixels, (side, side), "resize", antialias=3 * side < 2 * max(frame))
    return keras.Model(images, model(pixels), name=model.name)


def _resampled(
    images: keras.KerasTensor,
    size: tuple[int, int],
    fit: str,
    *,
    filter: _Filter = _TRIANGLE,
    antialias: bool = True,
) -> keras.KerasTensor:
    """[B, h, w, 3] -> [B, *size, 3], by a product with a matrix for each side; "resize" stretches."""
    ones = ops.ones_like(images)
    # The shape is not known before the model runs: what depends on it is computed from tensors of ones.
    rows, columns = ops.max(ones, axis=(2, 3)), ops.max(ones, axis=(1, 3))  # [B, h], [B, w]
    height, width = (ops.sum(side, axis=1, keepdims=True) for side in (rows, columns))
    by_rows, by_columns = size[0] / height, size[1] / width
    if fit == "native":
        matrices = [
            _cut_out(side, n, target)
            for side, n, target in zip((rows, columns), (height, width), size, strict=True)
        ]
    else:
        if fit == "crop":
            by_rows = by_columns = ops.maximum(by_rows, by_columns)
        elif fit == "pad":
            by_rows = by_columns = ops.minimum(by_rows, by_columns)
        matrices = [
            _weights(side, scale, target, filter, pad=fit == "pad", antialias=antialias)
            for side, scale, target in zip((rows, columns), (by_rows, by_columns), size, strict=True)
        ]
    from_rows, from_columns = (ops.expand_dims(matrix, 1) for matrix in matrices)
    planes = ops.transpose(images, (0, 3, 1, 2))
    planes = ops.matmul(ops.matmul(from_rows, planes), ops.transpose(from_columns, (0, 1, 3, 2)))
    return ops.transpose(planes, (0, 2, 3, 1))


def _weights(
    ones: keras.KerasTensor,
    scale: keras.KerasTensor,
    target: int,
    filter: _Filter,
    *,
    pad: bool,
    antialias: bool,
) -> keras.KerasTensor:
    """The weights of the pixels along a side, [B, target, n].

    Args:
      ones: [B, n], a one for each pixel.
      scale: [B, 1], pixels of the result per pixel of the image.
      target: pixels of the result along the side.
      pad: whether the image lies in the middle of the result, on a whole number of its pixels, with weights 0
        beside it; else the middle of the image fills the result.
      antialias: whether the filter grows as the image shrinks.
    """
    count = ops.sum(ones, axis=1, keepdims=True)
    inner = count * scale  # what the whole image takes in the result
    if pad:
        inner = ops.maximum(ops.round(inner), 1.0)
        scale, first = inner / count, filter.place((target - inner) / 2)
    else:
        first = (target - inner) / 2
    middles = np.arange(target, dtype=np.float32)[None] + 0.5
    at = ops.subtract(middles, first) / scale  # [B, target], in pixels of the image
    reach = ops.maximum(1.0 / scale, 1.0) if antialias else ops.ones_like(scale)
    distance = ops.expand_dims(_middles(ones), 1) - ops.expand_dims(at, 2)
    weights = filter.weight(ops.abs(distance) / ops.expand_dims(reach, 2))
    weights = weights / ops.maximum(ops.sum(weights, axis=2, keepdims=True), 1e-6)
    if pad:
        inside = ops.relu(ops.sign(ops.subtract(middles, first))) * ops.relu(
            ops.sign(first + inner - middles)
        )
        weights = weights * ops.expand_dims(inside, 2)
    return weights


def _cut_out(ones: keras.KerasTensor, count: keras.KerasTensor, target: int) -> keras.KerasTensor:
    """The same for a cut-out of the middle; where the image is smaller, it is mirrored at its edges."""
    start = ops.floor((count - target) / 2)
    index = ops.add(np.arange(target, dtype=np.float32)[None], start)
    period = ops.maximum(2 * count - 2, 1.0)
    index = count - 1 - ops.abs(ops.mod(index, period) - (count - 1))
    distance = ops.expand_dims(_middles(ones) - 0.5, 1) - ops.expand_dims(index, 2)
    return ops.relu(1.0 - ops.abs(distance))


def _middles(ones: keras.KerasTensor) -> keras.KerasTensor:
    """[B, n] of ones -> 0.5, 1.5, …"""
    return ops.cumsum(ones, axis=1) - 0.5
