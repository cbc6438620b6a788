"""Random draws of an augmentation: (seed pair per image) -> parameters per image.

Stateless: a draw is a function of the image's seed pair and the augmentation alone, so neither
the batch, nor the position in it, nor the device changes what happens to an image. Parameters
are named and distributed as in Keras's `ImageDataGenerator.get_random_transform`.
"""

import tensorflow as tf

from deepduel.augmentation.options import Augmentation, check_crop

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_KEY_PARITY = 0x1BD11BDA

FAMILIES = {"warp": 0, "mixing": 1, "rand_augment": 2}  # who draws; numbers are never reused

# Which uniform serves which parameter. Numbers are never reused, so that switching one option on
# leaves the draws of all others as they were.
_STREAMS = {
    "theta": 0,
    "tx": 1,
    "ty": 2,
    "shear": 3,
    "zx": 4,
    "zy": 5,
    "flip_horizontal": 6,
    "flip_vertical": 7,
    "brightness": 8,
    "quarter_turns": 9,
    "shift_y": 10,
    "shift_x": 11,
    "crop_top": 12,
    "crop_left": 13,
    "blur_sigma": 14,
    "blur_applied": 15,
    "jpeg_quality": 16,
    "jpeg_applied": 17,
    "tx_sign": 18,
    "ty_sign": 19,
    "channel_shift_intensity": 20,
}


def threefry(
    key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Threefry-2x32 with 20 rounds: two uint32 words per counter.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11);
    its known-answer vectors (Random123, tests/kat_vectors) are this function's tests.

    Args:
      key: two uint32 tensors.
      counter: two uint32 tensors that broadcast against the key.
    """
    words = (key[0], key[1], key[0] ^ key[1] ^ tf.constant(_KEY_PARITY, tf.uint32))
    left, right = counter[0] + words[0], counter[1] + words[1]
    for block in range(5):
        for distance in _ROTATIONS[block % 2]:
            left = left + right
            right = tf.bitwise.bitwise_or(
                tf.bitwise.left_shift(right, tf.constant(distance, tf.uint32)),
                tf.bitwise.right_shift(right, tf.constant(32 - distance, tf.uint32)),
            )
            right = left ^ right
        left = left + words[(block + 1) % 3]
        right = right + words[(block + 2) % 3] + tf.constant(block + 1, tf.uint32)
    return left, right


def uniforms(seeds: tf.Tensor, count: int, *, family: int = 0) -> tf.Tensor:
    """Uniform random numbers per image, from its seed pair alone.

    Args:
      seeds: int32 [B, 2].
      count: numbers per image; the first ones stay the same when it grows.
      family: whose numbers; those of one say nothing about those of another. See FAMILIES.

    Returns:
      float32 [B, count] in [0, 1), multiples of 2**-24.
    """
    key = tf.bitcast(tf.cast(seeds, tf.int32), tf.uint32)
    blocks = tf.range((count + 1) // 2, dtype=tf.int32)[None, :]
    counter = tf.cast(blocks, tf.uint32)
    other = tf.fill(tf.shape(counter), tf.constant(family, tf.uint32))
    words = tf.stack(threefry((key[:, :1], key[:, 1:]), (counter, other)), axis=-1)
    words = tf.reshape(words, [tf.shape(words)[0], words.shape[1] * 2])[:, :count]
    top_bits = tf.bitwise.right_shift(words, tf.constant(8, tf.uint32))
    return tf.cast(tf.cast(top_bits, tf.int32), tf.float32) * 2.0**-24


def draw(augmentation: Augmentation, seeds: tf.Tensor, height: int, width: int) -> dict[str, tf.Tensor]:
    """Draws what happens to each image.

    Args:
      augmentation: the ranges.
      seeds: int32 [B, 2], one pair per image.
      height: the images' height in pixels.
      width: their width in pixels.

    Returns:
      float32 [B] per parameter, named as `apply_transform` takes them. Parameters that the
      augmentation leaves at rest are not in it. Computed in float64, so that eager, compiled and
      accelerator runs round to the same float32.
    """
    values = tf.cast(uniforms(seeds, max(_STREAMS.values()) + 1), tf.float64)
    uniform = {name: values[:, stream] for name, stream in _STREAMS.items()}
    spec = augmentation
    frame = (spec.crop_size, spec.crop_size) if spec.crop_size else (height, width)
    out: dict[str, tf.Tensor] = {}

    def between(name: str, low: float, high: float) -> None:
        out[name] = low + uniform[name] * (high - low)

    def whole(name: str, low: int, high: int) -> None:  # low..high, both included
        out[name] = low + tf.minimum(tf.floor(uniform[name] * (high - low + 1)), float(high - low))

    if spec.rotation_range:
        between("theta", -float(spec.rotation_range), float(spec.rotation_range))
    for name, reach, side in (
        ("tx", spec.height_shift_range, frame[0]),
        ("ty", spec.width_shift_range, frame[1]),
    ):
        sign = 1 - 2 * tf.cast(uniform[f"{name}_sign"] < 0.5, tf.float64)
        if isinstance(reach, tuple):  # as np.random.choice(list) times a random sign
            whole(name, 0, len(reach) - 1)
            values = tf.constant(reach, tf.float64) * (side if max(reach) < 1 else 1)
            out[name] = tf.gather(values, tf.cast(out[name], tf.int32)) * sign
        elif isinstance(reach, int) and reach >= 1:  # as np.random.choice(int) times a random sign
            whole(name, 0, reach - 1)
            out[name] *= sign
        elif reach:
            limit = float(reach) * (side if reach < 1 else 1)
            between(name, -limit, limit)
    if spec.shear_range:
        between("shear", -float(spec.shear_range), float(spec.shear_range))
    if spec.zooms != (1, 1):
        between("zx", *spec.zooms)
        between("zy", *spec.zooms)
    for name in ("flip_horizontal", "flip_vertical"):
        if getattr(spec, "_".join(reversed(name.split("_")))):
            out[name] = tf.cast(uniform[name] < 0.5, tf.float64)
    if spec.channel_shift_range:
        between("channel_shift_intensity", -float(spec.channel_shift_range), float(spec.channel_shift_range))
    if spec.brightness_range is not None:
        between("brightness", *spec.brightness_range)
    if spec.quarter_turns:
        whole("quarter_turns", 0, 3)
    if spec.shift_pixels:
        whole("shift_y", -spec.shift_pixels, spec.shift_pixels)
        whole("shift_x", -spec.shift_pixels, spec.shift_pixels)
    if spec.crop_size:
        check_crop(spec.crop_size, height, width)
        whole("crop_top", 0, height - spec.crop_size)
        whole("crop_left", 0, width - spec.crop_size)
    if spec.blur_sigma is not None:
        between("blur_sigma", *spec.blur_sigma)
        out["blur_sigma"] *= tf.cast(uniform["blur_applied"] < spec.blur_probability, tf.float64)
    if spec.jpeg_quality is not None:
        whole("jpeg_quality", *spec.jpeg_quality)
        out["jpeg_quality"] *= tf.cast(uniform["jpeg_applied"] < spec.jpeg_probability, tf.float64)
    return {name: tf.cast(value, tf.float32) for name, value in out.items()}
