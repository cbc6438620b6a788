"""Changes of pixel values: channel shift, brightness, blur, JPEG. float32 [B, H, W, 3] 0..255 in and out.

Each function takes one value per image, can be compiled by XLA and runs on the device.
"""

import numpy as np
import tensorflow as tf

# ITU-T T.81, tables K.1 and K.2, as in libjpeg's jcparam.c.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def channel_shift(images: tf.Tensor, intensity: tf.Tensor) -> tf.Tensor:
    """Adds a number per image [B] to its pixels, clipped to the image's own lowest and highest value.

    The same as Keras' `apply_channel_shift`, which shifts all channels by one number.
    """
    lowest = tf.reduce_min(images, axis=(1, 2, 3), keepdims=True)
    highest = tf.reduce_max(images, axis=(1, 2, 3), keepdims=True)
    return tf.clip_by_value(images + tf.cast(intensity, tf.float32)[:, None, None, None], lowest, highest)


def brightness(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies 8-bit pixels by a factor per image [B], as Pillow's ImageEnhance.Brightness does.

    ImageDataGenerator goes through 8-bit Pillow images, so fractions are truncated twice, before and after
    the product. The output has integer values 0..255.
    """
    truncated = tf.floor(tf.clip_by_value(images, 0.0, 255.0))
    return tf.floor(tf.minimum(truncated * tf.cast(factor, tf.float32)[:, None, None, None], 255.0))


def blur(images: tf.Tensor, sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Gaussian blur, one standard deviation in pixels per image [B]; 0 leaves the image as it is.

    Args:
      images: float32 [B, H, W, C].
      sigma: [B], standard deviations in pixels.
      radius: taps to each side; at three times the largest sigma they have 99.7 % of the weight.
    """
    if radius == 0:
        return images
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    width = tf.maximum(tf.cast(sigma, tf.float32), 1e-3)[:, None]  # weights beside it underflow to 0
    weights = tf.exp(-0.5 * tf.square(offsets[None, :] / width))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    height, width, channels = images.shape[1:]
    # Without an axis of channels, each tap is one long addition: 12 times as fast on a CPU.
    rows = tf.reshape(
        _with_edges(images, radius, radius, axis=1), [-1, height + 2 * radius, width * channels]
    )
    taps = [weights[:, k, None, None] * rows[:, k : k + height] for k in range(2 * radius + 1)]
    images = tf.reshape(tf.add_n(taps), [-1, height, width, channels])
    padded = (width + 2 * radius) * channels
    columns = tf.reshape(_with_edges(images, radius, radius, axis=2), [-1, height, padded])
    starts = range(0, (2 * radius + 1) * channels, channels)
    taps = [
        weights[:, k, None, None] * columns[:, :, start : start + width * channels]
        for k, start in enumerate(starts)
    ]
    return tf.reshape(tf.add_n(taps), [-1, height, width, channels])


def _with_edges(images: tf.Tensor, before: int, after: int, *, axis: int) -> tf.Tensor:
    """Repeats the first and the last row (axis 1) or column (axis 2) outwards.

    A gather would do it in one operation, but XLA fuses it into all that follows, several times as slow.
    """
    first, last = (images[:, :1], images[:, -1:]) if axis == 1 else (images[:, :, :1], images[:, :, -1:])
    return tf.concat([*[first] * before, images, *[last] * after], axis) if before or after else images


def jpeg(images: tf.Tensor, quality: tf.Tensor) -> tf.Tensor:
    """Simulates JPEG compression (4:2:0, libjpeg's tables) at a quality 1..100 per image [B]; 0 does nothing.

    Computes the lossy steps: colour conversion, halved chroma, cosine transform, quantisation, and back
    with libjpeg's triangle upsampling. On textured pictures at qualities 20 to 95 the result is within
    1.1 grey levels of libjpeg's on average (whose own difference from the picture is 6 to 11). The output has
    integer values 0..255 where the quality is above 0.
    """
    height, width = images.shape[1:3]
    pixels = tf.round(tf.clip_by_value(images, 0.0, 255.0))
    pixels = _with_edges(_with_edges(pixels, 0, -height % 16, axis=1), 0, -width % 16, axis=2)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    luma = tf.round(0.299 * red + 0.587 * green + 0.114 * blue)
    blueness = tf.round(128 - 0.168735892 * red - 0.331264108 * green + 0.5 * blue)
    redness = tf.round(128 + 0.5 * red - 0.418687589 * green - 0.081312411 * blue)
    scale = tf.cast(quality, tf.float32)
    clipped = tf.maximum(scale, 1.0)
    percent = tf.where(clipped < 50, tf.floor(5000 / clipped), 200 - 2 * clipped)[:, None, None]

    def table(base: np.ndarray) -> tf.Tensor:
        return tf.clip_by_value(tf.floor((base * percent + 50) / 100), 1.0, 255.0)

    luma = _quantise(luma, table(_LUMA))
    blueness, redness = (
        _double(_quantise(_halve(plane), table(_CHROMA))) - 128 for plane in (blueness, redness)
    )
    rgb = tf.stack(
        (
            luma + 1.402 * redness,
            luma - 0.344136286 * blueness - 0.714136286 * redness,
            luma + 1.772 * blueness,
        ),
        axis=-1,
    )
    rgb = tf.clip_by_value(tf.round(rgb), 0.0, 255.0)[:, :height, :width]
    return tf.where(scale[:, None, None, None] > 0, rgb, images)


def _quantise(plane: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    """Quantises the 8x8 cosine transform of a plane [B, H, W], and transforms back."""
    batch = tf.shape(plane)[0]
    height, width = plane.shape[1:]
    k = np.arange(8)
    basis = np.cos((2 * k[None] + 1) * k[:, None] * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    # Rows and columns are transformed in one matrix product, 64 pixels to 64 coefficients.
    matrix = tf.constant(np.kron(basis, basis), tf.float32)
    blocks = tf.reshape(plane - 128, [batch, height // 8, 8, width // 8, 8])
    blocks = tf.reshape(tf.transpose(blocks, [0, 1, 3, 2, 4]), [batch, -1, 64])
    steps = tf.reshape(table, [-1, 1, 64])
    coefficients = tf.round(tf.einsum("bnp,cp->bnc", blocks, matrix) / steps) * steps
    blocks = tf.einsum("bnc,cp->bnp", coefficients, matrix)
    blocks = tf.reshape(blocks, [batch, height // 8, width // 8, 8, 8])
    plane = tf.reshape(tf.transpose(blocks, [0, 1, 3, 2, 4]), [batch, height, width])
    return tf.clip_by_value(tf.round(plane + 128), 0.0, 255.0)


def _halve(plane: tf.Tensor) -> tf.Tensor:
    """Averages 2x2 pixels, rounding up and down alternately (libjpeg's jcsample.c, h2v2_downsample)."""
    sums = plane[:, ::2, ::2] + plane[:, 1::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, 1::2]
    bias = 1.0 + tf.cast(tf.range(sums.shape[2]) % 2, tf.float32)
    return tf.floor((sums + bias) / 4)


def _double(plane: tf.Tensor) -> tf.Tensor:
    """Doubles the size with weights 3/4 and 1/4 per axis (libjpeg's jdsample.c, h2v2_fancy_upsample)."""
    for axis in (1, 2):
        side = plane.shape[axis]
        before = tf.gather(plane, np.maximum(np.arange(side) - 1, 0), axis=axis)
        after = tf.gather(plane, np.minimum(np.arange(side) + 1, side - 1), axis=axis)
        pair = tf.stack((plane * 0.75 + before * 0.25, plane * 0.75 + after * 0.25), axis=axis + 1)
        shape = list(plane.shape[1:])
        shape[axis - 1] *= 2
        plane = tf.reshape(pair, [-1, *shape])
    return tf.round(plane)
