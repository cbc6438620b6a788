"""Fixed filters in front of a network, which leave the picture out and the traces of its making in.

Each takes float32 [B, S, S, 3] pixels 0..255 and gives an image of the same kind: same size, three
channels, 0..255. So it goes in front of any network, with that network's own preprocessing and weights. They
are made of Keras' own layers and operations, train nothing, and are saved in the model.
"""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

_HIGHPASS_RANGE = 32.0  # grey levels of residual that become 0 and 255
_SRM_RANGE = 3.0  # as the truncated linear unit of Ye, Ni and Yi 2017

# Fridrich and Kodovsky 2012 ("Rich models"), as chosen by Zhou et al. 2018 (arXiv 1805.04953): a second
# difference along the row, the 3x3 "square" and the 5x5 "square" kernel, and what each is divided by. The
# division comes after the sum: sums of whole pixels and whole weights are exact in float32 in any order of
# addition, so that every processor gives the same pixels.
_LINE = np.array([[1, -2, 1]])
_SQUARE_3 = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]])
_SQUARE_5 = np.array(
    [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
)
_LINE_DIVISOR, _SQUARE_3_DIVISOR, _SQUARE_5_DIVISOR = 2, 4, 12


def highpass(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Each channel's 3x3 residual: what its neighbours do not foretell, 127.5 for nothing."""
    return _as_pixels(square_residual(pixels, name="highpass"), [_SQUARE_3_DIVISOR] * 3, _HIGHPASS_RANGE)


def srm(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Three noise residuals of the spatial rich model, each the mean over the colours."""
    residuals = _filtered(pixels, [_LINE, _SQUARE_3, _SQUARE_5], "srm")  # per colour: three residuals
    size = pixels.shape[1:3]
    sums = ops.sum(ops.reshape(residuals, (-1, *size, 3, 3)), axis=3)  # over the colours
    divisors = [3 * _LINE_DIVISOR, 3 * _SQUARE_3_DIVISOR, 3 * _SQUARE_5_DIVISOR]
    return _as_pixels(sums, divisors, _SRM_RANGE)


def spectrum(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Each channel's log magnitudes of the discrete Fourier transform, frequency 0 in the middle.

    log(1 + |F| / S), scaled so that the largest that an image of S pixels can have is 255.
    """
    side = pixels.shape[1]
    channels = ops.transpose(pixels, (0, 3, 1, 2))
    real, imaginary = ops.fft2((channels, ops.zeros_like(channels)))
    # A floor of 1e-6: the root's slope at 0 is infinite.
    magnitudes = ops.log1p(ops.sqrt(real * real + imaginary * imaginary + 1e-6) / side)
    middle = ops.roll(magnitudes, (side // 2, side // 2), axis=(2, 3))
    return ops.transpose(middle, (0, 2, 3, 1)) * (255 / float(np.log1p(255 * side)))


def square_residual(pixels: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """[B, S, S, 3]: each channel through the 3x3 square kernel of whole numbers (4 times the residual)."""
    return _filtered(pixels, [_SQUARE_3], name)


def reset_kernels(extractor: keras.Model) -> None:
    """Gives the filter in front of a network its kernels again, after a training state was loaded.

    A state holds every variable, the constant kernels too; those of earlier versions were already divided.
    """
    for layer in extractor.layers:
        if isinstance(layer, layers.DepthwiseConv2D) and layer.name in FILTERS:
            layer.kernel.assign(layer.depthwise_initializer(layer.kernel.shape))


FILTERS: dict[str, Callable] = {
    "none": lambda pixels: pixels, "highpass": highpass, "srm": srm, "spectrum": spectrum,
}  # fmt: skip


def _filtered(pixels: keras.KerasTensor, kernels: list[np.ndarray], name: str) -> keras.KerasTensor:
    """[B, S, S, 3 * kernels]: every channel through every kernel; edges are repeated."""
    side = max(max(kernel.shape) for kernel in kernels)
    stacked = np.zeros((side, side, 3, len(kernels)), np.float32)
    for number, kernel in enumerate(kernels):
        top, left = (side - kernel.shape[0]) // 2, (side - kernel.shape[1]) // 2
        stacked[top : top + kernel.shape[0], left : left + kernel.shape[1], :, number] = kernel[:, :, None]
    around = pixels
    for _ in range(side // 2):  # mirroring one pixel again and again repeats the edge
        around = ops.pad(around, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="symmetric")
    return layers.DepthwiseConv2D(
        side,
        depth_multiplier=len(kernels),
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(stacked),
        trainable=False,
        dtype="float32",
        name=name,
    )(around)


def _as_pixels(residuals: keras.KerasTensor, divisors: list[int], limit: float) -> keras.KerasTensor:
    """Residuals over their channel's divisor, -limit..limit -> 0..255, cut off beyond."""
    scale = [127.5 / (limit * divisor) for divisor in divisors]
    pixels = layers.Rescaling(scale, offset=127.5, dtype="float32")(residuals)
    return ops.clip(pixels, 0.0, 255.0)
