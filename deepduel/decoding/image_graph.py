"""`deepduel.decoding.image` in TensorFlow's operations: one encoded image -> uint8 [H, W, 3].

The same pixels at native resolution and where the image has the row's size; resampled images differ by
the rounding between the two passes of `resample`.
"""

from collections.abc import Collection

import tensorflow as tf

from deepduel.decoding import image as decoding_image
from deepduel.decoding.image import DecodeOptions
from tfrecords_tools.images import jpeg as jpeg_format
from tfrecords_tools.images.encoding_options import MAX_PIXELS


def decode_image(
    data: tf.Tensor,
    options: DecodeOptions,
    encodings: Collection[str],
    one_size: tuple[int, int] | None,
    seed: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Decodes an image in a graph, with no more branches than the data set's images need.

    Args:
      data: the encoded image, string [], as `emptied` returns it.
      encodings: those it may have: "jpeg", and "png" or "raw".
      one_size: (height, width) of all images; None where they differ.
      seed: two int64 scalars from which fit "native" draws its crop; None: the centre.

    Returns:
      uint8 [H, W, 3] of `options.size`.
    """
    height, width = options.size

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(data)[:2]
        if one_size is not None and one_size[0] * one_size[1] <= MAX_PIXELS:
            same = tf.debugging.Assert(
                tf.reduce_all(shape == one_size), ["another size than recorded", shape]
            )
            with tf.control_dependencies([same]):
                shape = tf.constant(one_size)  # `emptied` has counted the scans
                return decoded(tf.identity(shape), decoding_image.scale(*one_size, options))
        shape = _require_few_scans(data, _require_few_pixels(shape))
        ratios = tf.cast(shape, tf.float64) / tf.constant([height, width], tf.float64)
        ratio = tf.reduce_min(ratios) if options.fit == "crop" else tf.reduce_max(ratios)
        least = {scale: scale * decoding_image.margin(options) for scale in decoding_image.SCALES}
        cases = [(ratio >= least[scale], lambda scale=scale: decoded(shape, scale)) for scale in least]
        return decoded(shape, 1) if options.fit == "native" else tf.case(cases, lambda: decoded(shape, 1))

    def decoded(shape: tf.Tensor, scale: int) -> tf.Tensor:
        method = "INTEGER_FAST" if options.fast else "INTEGER_ACCURATE"
        with tf.control_dependencies([shape]):  # its checks come first
            image = tf.io.decode_jpeg(
                data, channels=3, ratio=scale, dct_method=method, fancy_upscaling=not options.fast
            )
        if one_size == options.size:
            return image
        return _resize(image, options, seed, full=shape, scale=scale)

    def other() -> tf.Tensor:
        if one_size is not None and set(encodings) - {"jpeg"} == {"raw"}:
            image = tf.reshape(tf.io.decode_raw(data, tf.uint8), (*one_size, 3))
        else:
            image = tf.io.decode_png(_require_small_png(data), channels=3)
        return _resize(image, options, seed, full=tf.shape(image)[:2], scale=1)

    if set(encodings) == {"jpeg"}:
        image = jpeg()  # the operation that reads its size refuses what is none
    else:
        image = tf.cond(tf.strings.substr(data, 0, 2) == b"\xff\xd8", jpeg, other)
    return tf.ensure_shape(image, (height, width, 3))


def emptied(images: tf.Tensor, one_size: tuple[int, int] | None) -> tf.Tensor:
    """Encoded images [B], those of one size with too many scans replaced by empty ones, which do not decode.

    For all images of a batch at once, since a branch for each costs 4 % of decoding small images. Images of
    different sizes stay as they are: `decode_image` counts their scans once it knows their size.
    """
    if one_size is None or one_size[0] * one_size[1] > MAX_PIXELS:
        return images
    pixels = tf.constant(one_size[0] * one_size[1], tf.int64)
    large = pixels * tf.cast(tf.strings.length(images), tf.int64) > decoding_image.SCANS_MATTER

    def checked() -> tf.Tensor:
        return tf.where(_have_few_scans(tf.where(large, images, ""), pixels), images, "")

    return tf.cond(tf.reduce_any(large), checked, lambda: images)


def _require_few_pixels(shape: tf.Tensor) -> tf.Tensor:
    """(height, width), after a check of their product."""
    few = tf.reduce_prod(tf.cast(shape, tf.int64)) <= MAX_PIXELS
    with tf.control_dependencies([tf.debugging.Assert(few, ["too many pixels", shape])]):
        return tf.identity(shape)


def _require_few_scans(data: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """(height, width), after a check of the number of scans."""
    pixels = tf.reduce_prod(tf.cast(shape, tf.int64))
    few = tf.debugging.Assert(_has_few_scans(data, pixels), ["too many scans"])
    with tf.control_dependencies([few]):
        return tf.identity(shape)


def _has_few_scans(data: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Whether the scans of an image are few, or it is so small that they do not matter."""
    large = pixels * tf.cast(tf.strings.length(data), tf.int64) > decoding_image.SCANS_MATTER
    return tf.cond(large, lambda: _have_few_scans(tf.reshape(data, [1]), pixels)[0], lambda: True)


def _have_few_scans(images: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Whether the scans of images [B] are as few as `jpeg.excessive_scans` wants them.

    It counts the marker of a scan in baseline files too, which have few.
    """
    # `tf.strings.split` makes a ragged tensor of the parts, with more operations.
    parts = tf.raw_ops.StringSplitV2(input=images, sep=jpeg_format.SCAN)
    count = tf.size(images)
    scans = tf.math.unsorted_segment_sum(tf.ones_like(parts.indices[:, 0]), parts.indices[:, 0], count) - 1
    return (scans <= jpeg_format.MAX_SCANS) & (scans * pixels <= jpeg_format.MAX_SCANNED_PIXELS)


def _require_small_png(data: tf.Tensor) -> tf.Tensor:
    """The data, after a check that they begin as a PNG of few pixels: TensorFlow decodes any format."""
    is_png = tf.strings.substr(data, 0, 8) == b"\x89PNG\r\n\x1a\n"
    with tf.control_dependencies([tf.debugging.Assert(is_png, ["not a PNG image"])]):
        sides = tf.io.decode_raw(tf.strings.substr(data, 16, 8), tf.int32, little_endian=False)
    positive = tf.debugging.Assert(tf.reduce_all(sides > 0), ["no PNG has such a size", sides])
    with tf.control_dependencies([positive, _require_few_pixels(sides)]):
        return tf.identity(data)


def _resize(
    image: tf.Tensor,
    options: DecodeOptions,
    seed: tuple[tf.Tensor, tf.Tensor] | None,
    *,
    full: tf.Tensor,
    scale: int,
) -> tf.Tensor:
    if options.fit == "native":
        return _cut_out(image, options.size, seed)
    resample = _pad if options.fit == "pad" else _crop

    def resized() -> tf.Tensor:
        pixels = resample(tf.cast(image, tf.float32), options.size, tf.cast(full, tf.float32), scale)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)

    return resized() if scale > 1 else tf.cond(tf.reduce_all(full == options.size), lambda: image, resized)


def _crop(image: tf.Tensor, size: tuple[int, int], full: tf.Tensor, scale: int) -> tf.Tensor:
    """ScaleAndTranslate is what `tf.image.resize` with antialias calls, but takes a box as well."""
    factor = tf.reduce_max(tf.constant(size, tf.float32) / full)
    corner = (full - tf.constant(size, tf.float32) / factor) / 2
    return _resample(image, size, factor * scale, -corner * factor)


def _pad(image: tf.Tensor, size: tuple[int, int], full: tf.Tensor, scale: int) -> tf.Tensor:
    factor = tf.reduce_min(tf.constant(size, tf.float32) / full)
    inner = tf.maximum(1, tf.cast(tf.round(full * factor), tf.int32))
    resized = _resample(image, inner, tf.cast(inner, tf.float32) / full * scale, tf.zeros(2))
    before = (tf.constant(size) - inner) // 2
    after = tf.constant(size) - inner - before
    return tf.pad(resized, [[before[0], after[0]], [before[1], after[1]], [0, 0]])


def _resample(
    image: tf.Tensor, size: tf.Tensor | tuple[int, int], factor: tf.Tensor, translation: tf.Tensor
) -> tf.Tensor:
    factors = tf.broadcast_to(factor, [2])
    kernel = {"kernel_type": "triangle", "antialias": True}
    return tf.raw_ops.ScaleAndTranslate(
        images=image[None], size=size, scale=factors, translation=translation, **kernel
    )[0]


def _cut_out(image: tf.Tensor, size: tuple[int, int], seed: tuple[tf.Tensor, tf.Tensor] | None) -> tf.Tensor:
    shape = tf.shape(image, tf.int64)
    words = (None, None) if seed is None else decoding_image.crop_words(*seed)
    for axis, (wanted, word) in enumerate(zip(size, words, strict=True)):
        free = shape[axis] - wanted
        start = free // 2
        if word is not None:
            start = tf.where(free > 0, word * (free + 1) // 2**32, start)
        index = decoding_image.mirrored(start + tf.range(wanted, dtype=tf.int64), shape[axis])
        image = tf.gather(image, index, axis=axis)
    return image
