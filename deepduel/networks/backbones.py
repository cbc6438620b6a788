"""Backbones with their preprocessing: the networks of keras.applications, and two of deepduel's own.

    preprocess   pixels 0..255 [B, S, S, 3] -> the network's input [B, S, S, 3]
    backbone     the network's input -> feature map [B, h, w, C]

`small_cnn` is for first tries, `forensic_cnn` distinguishes real from generated images without ImageNet
weights. Both are trained from scratch.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from deepduel.networks import input_filters
from tfrecords_tools.errors import DataError, UsageError


def names() -> list[str]:
    """The names of all backbones."""
    applications = (
        name
        for name in dir(keras.applications)
        if inspect.isclass(getattr(keras.applications, name)) or name[0].isupper()
    )
    return [*OWN, *sorted(name.lower() for name in applications)]


def build(
    name: str, size: int, *, imagenet: bool = False, stem_stride: int = 0
) -> tuple[keras.Model, Callable]:
    """Builds a backbone: (backbone, preprocess), both for [B, size, size, 3].

    Args:
      name: one of `names`, in any case.
      size: side of the square input in pixels.
      imagenet: whether the backbone starts from ImageNet weights, else from random ones.
      stem_stride: stride of the first convolution that has one; 0 leaves the network as it is.

    Raises:
      UsageError: there is no such network, or it cannot be built at this size or with this stride.
      DataError: the ImageNet weights cannot be downloaded.
    """
    if name in OWN:
        backbone = OWN[name](size, stem_stride)
        return backbone, layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="preprocess")
    constructor, preprocess_input = application(name)
    try:
        backbone = constructor(
            include_top=False, weights="imagenet" if imagenet else None, input_shape=(size, size, 3)
        )
    except ValueError as error:
        raise UsageError(f"{name} cannot be built at {size} px: {error}") from error
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if not imagenet:
            raise
        reason = str(error).splitlines()[0]
        raise DataError(
            f"the ImageNet weights of {name} cannot be downloaded ({reason}); connect to the internet once "
            "(they are then kept in ~/.keras/models), start from a file with --weights=FILE, or train a "
            "small network without them: --backbone=small_cnn --weights=none --head=avg --image_size=64 "
            "--optimizer=muon --batch_size=32 --epochs=20"
        ) from error
    if stem_stride:
        backbone = _with_stem_stride(backbone, name, stem_stride)
    return backbone, _preprocessing_layers(preprocess_input)


def small_cnn(image_size: int, stem_stride: int = 0) -> keras.Model:
    """A small residual network of 0.3 million parameters for tests and first tries.

    Images above 64 px are halved on entry by a strided convolution, so that it is fast enough on a CPU.
    """
    inputs = keras.Input((image_size, image_size, 3))
    strides = stem_stride or (2 if image_size > 64 else 1)
    x = layers.Conv2D(32, 3, strides=strides, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(_batch_norm()(x))
    for stage, filters in enumerate((32, 64, 128)):
        x = _residual(x, filters, strides=1 if stage == 0 else 2)
    return keras.Model(inputs, x, name="small_cnn")


def forensic_cnn(image_size: int, stem_stride: int = 0) -> keras.Model:
    """A residual network of 2.8 million parameters for traces that are a few pixels wide, at any image size.

    The stem has stride 1 at every size (`stem_stride` above 1 is faster on large images), and nothing is
    pooled before the residual stages. Its input is the pixels and their high-pass residual, which contains
    little of the picture itself. Shortcuts that halve do so by averaging, so that they use all pixels too
    ("ResNet-D", He et al. 2019, arXiv 1812.01187). Meant for heads that pool globally, because the traces
    are all over the image.
    """
    inputs = keras.Input((image_size, image_size, 3))
    residual = input_filters.square_residual(inputs, name="residual")
    x = layers.Concatenate()([inputs, residual])
    x = layers.Conv2D(32, 3, strides=stem_stride or 1, padding="same", use_bias=False)(x)
    x = layers.ReLU()(_batch_norm()(x))
    for filters, blocks in ((64, 2), (128, 2), (256, 2)):
        for block in range(blocks):
            x = _residual(x, filters, strides=2 if block == 0 else 1, averaging=True)
    return keras.Model(inputs, x, name="forensic_cnn")


OWN: dict[str, Callable[[int, int], keras.Model]] = {"small_cnn": small_cnn, "forensic_cnn": forensic_cnn}


def _batch_norm() -> layers.Layer:
    # Keras' momentum of 0.99 needs hundreds of steps before inference works; small data sets have fewer.
    return layers.BatchNormalization(momentum=0.9)


def _residual(
    x: keras.KerasTensor, filters: int, *, strides: int, averaging: bool = False
) -> keras.KerasTensor:
    """A residual block: two 3x3 convolutions with batch norm, and a shortcut (He et al. 2016)."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        if averaging and strides > 1:
            shortcut, strides_left = layers.AveragePooling2D(strides, padding="same")(shortcut), 1
        else:
            strides_left = strides
        shortcut = layers.Conv2D(filters, 1, strides=strides_left, use_bias=False)(shortcut)
        shortcut = _batch_norm()(shortcut)
    y = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    y = layers.ReLU()(_batch_norm()(y))
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
    y = _batch_norm()(y)
    return layers.ReLU()(layers.Add()([y, shortcut]))


def application(name: str) -> tuple[Callable, Callable]:
    """(constructor, preprocess_input) of a network of keras.applications. Raises UsageError."""
    for candidate in dir(keras.applications):
        constructor = getattr(keras.applications, candidate)
        if candidate.lower() == name.lower() and inspect.isfunction(constructor):
            module: Any = inspect.getmodule(constructor)
            return constructor, module.preprocess_input
    raise UsageError(f"there is no backbone {name!r}; it must be one of {', '.join(names())}")


def _with_stem_stride(backbone: keras.Model, name: str, stride: int) -> keras.Model:
    """A copy with the same weights and another stride in the first convolution that has one.

    Models within the model (ConvNeXt's stem is one) are not searched, because their input's size is fixed.
    """
    kinds = (layers.Conv2D, layers.SeparableConv2D, layers.DepthwiseConv2D)
    strided = [layer for layer in backbone.layers if isinstance(layer, kinds) and max(layer.strides) > 1]
    if not strided:
        raise UsageError(
            f"stem_stride={stride}: {name} has no convolution whose stride could be changed; use 0"
        )
    first = strided[0]
    if stride > max(first.strides):
        raise UsageError(f"stem_stride must be at most {max(first.strides)} for {name}, got {stride}")

    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if layer is first:
            config["strides"] = (stride, stride)
        return type(layer).from_config(config)

    changed = keras.models.clone_model(backbone, clone_function=clone)
    changed.set_weights(backbone.get_weights())
    return changed


def _preprocessing_layers(preprocess_input: Callable) -> Callable[[Any], Any]:
    """A network's preprocess_input as plain Keras layers.

    Every preprocess_input of keras.applications is an affine function of the pixel, some with the channels
    reversed. Its coefficients are measured on four pixels, so that they are right for each network.
    """
    probe = np.zeros((1, 4, 1, 3), np.float32)
    probe[0, 1:, 0] = 255 * np.eye(3)
    measured = np.asarray(preprocess_input(probe.copy()), np.float32)[0, :, 0]
    offset, matrix = measured[0], (measured[1:] - measured[0]) / 255  # matrix[in, out]
    reverse = bool(abs(matrix[0, 2]) > abs(matrix[0, 0]))
    scale = np.diag(matrix[::-1] if reverse else matrix)
    rescale = layers.Rescaling(scale.tolist(), offset=offset.tolist(), dtype="float32", name="preprocess")
    if reverse:
        return lambda pixels: rescale(keras.ops.flip(pixels, axis=-1))
    return rescale
