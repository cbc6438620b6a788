"""Random draws of an augmentation: (seed pair per image) -> parameters per image.

Stateless: a draw is a function of the image's seed pair and the augmentation alone, so it depends neither
on the batch, nor on the position in it, nor on the device. Parameters are named and distributed as in
Keras' `ImageDataGenerator.get_random_transform`.
"""

import tensorflow as tf

from deepduel.augmentation.options import Augmentation, check_crop
from deepduel.augmentation.parameters import parameters

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_KEY_PARITY = 0x1BD11BDA

FAMILIES = {"warp": 0, "mixing": 1, "rand_augment": 2}  # purposes; numbers are never reused

# {random number: which uniform of the image's it is}
_STREAMS = {
    name: stream
    for parameter in parameters(Augmentation).values()
    for name, stream in parameter.streams.items()
}
_Uniforms = dict[str, tf.Tensor]  # float64 [B] each


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
      count: numbers per image; a larger count leaves the first numbers the same.
      family: purpose of the numbers, from FAMILIES; numbers of different families are independent.

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
    """Draws the parameters of each image.

    Args:
      augmentation: the ranges.
      seeds: int32 [B, 2], one pair per image.
      height: height of the images in pixels.
      width: width of the images in pixels.

    Returns:
      float32 [B] per parameter, named as `apply_transform` takes them, without the parameters that the
      augmentation leaves off. Computed in float64, so that eager, compiled and accelerator runs round to
      the same float32.

    Raises:
      ValueError: the crop is larger than the images.

    Example:
      >>> augmentation = Augmentation(rotation_range=30, horizontal_flip=True)
      >>> sorted(draw(augmentation, tf.zeros([4, 2], tf.int32), 32, 32))
      ['flip_horizontal', 'theta']
    """
    check_crop(augmentation.crop_size, height, width)
    uniform = _streams(seeds)
    drawn = {
        **_interpolated_moves(augmentation, uniform, height, width),
        **_exact_moves(augmentation, uniform, height, width),
        **_pixel_changes(augmentation, uniform),
    }
    return {name: tf.cast(value, tf.float32) for name, value in drawn.items()}


def draw_pixel_changes(augmentation: Augmentation, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
    """The parameters of `draw` that do not depend on the images' size: channel shift to JPEG quality."""
    drawn = _pixel_changes(augmentation, _streams(seeds))
    return {name: tf.cast(value, tf.float32) for name, value in drawn.items()}


def _streams(seeds: tf.Tensor) -> _Uniforms:
    values = tf.cast(uniforms(seeds, max(_STREAMS.values()) + 1), tf.float64)
    return {name: values[:, stream] for name, stream in _STREAMS.items()}


def _interpolated_moves(spec: Augmentation, uniform: _Uniforms, height: int, width: int) -> _Uniforms:
    """Rotation, shifts, shear and zoom."""
    drawn = {}
    if spec.rotation_range:
        drawn["theta"] = _symmetric(uniform["theta"], spec.rotation_range)
    if spec.height_shift_range:
        side = spec.crop_size or height
        drawn["tx"] = _shift(spec.height_shift_range, side, uniform["tx"], uniform["tx_sign"])
    if spec.width_shift_range:
        side = spec.crop_size or width
        drawn["ty"] = _shift(spec.width_shift_range, side, uniform["ty"], uniform["ty_sign"])
    if spec.shear_range:
        drawn["shear"] = _symmetric(uniform["shear"], spec.shear_range)
    if spec.zooms != (1, 1):
        drawn["zx"] = _between(uniform["zx"], *spec.zooms)
        drawn["zy"] = _between(uniform["zy"], *spec.zooms)
    return drawn


def _exact_moves(spec: Augmentation, uniform: _Uniforms, height: int, width: int) -> _Uniforms:
    """Flips, quarter turns, shifts by whole pixels and the place of the crop."""
    drawn = {}
    if spec.horizontal_flip:
        drawn["flip_horizontal"] = _happens(uniform["flip_horizontal"], 0.5)
    if spec.vertical_flip:
        drawn["flip_vertical"] = _happens(uniform["flip_vertical"], 0.5)
    if spec.quarter_turns:
        drawn["quarter_turns"] = _integer(uniform["quarter_turns"], 0, 3)
    if spec.shift_pixels:
        for name in ("shift_y", "shift_x"):
            drawn[name] = _integer(uniform[name], -spec.shift_pixels, spec.shift_pixels)
    if spec.crop_size:
        drawn["crop_top"] = _integer(uniform["crop_top"], 0, height - spec.crop_size)
        drawn["crop_left"] = _integer(uniform["crop_left"], 0, width - spec.crop_size)
    return drawn


def _pixel_changes(spec: Augmentation, uniform: _Uniforms) -> _Uniforms:
    """Channel shift, brightness, blur and JPEG."""
    drawn = {}
    if spec.channel_shift_range:
        shift = _symmetric(uniform["channel_shift_intensity"], spec.channel_shift_range)
        drawn["channel_shift_intensity"] = shift
    if spec.brightness_range is not None:
        drawn["brightness"] = _between(uniform["brightness"], *spec.brightness_range)
    if spec.blur_sigma is not None:
        sigma = _between(uniform["blur_sigma"], *spec.blur_sigma)
        drawn["blur_sigma"] = sigma * _happens(uniform["blur_applied"], spec.blur_probability)
    if spec.jpeg_quality is not None:
        quality = _integer(uniform["jpeg_quality"], *spec.jpeg_quality)
        drawn["jpeg_quality"] = quality * _happens(uniform["jpeg_applied"], spec.jpeg_probability)
    return drawn


def _shift(
    shift_range: float | tuple[float, ...], side: int, uniform: tf.Tensor, sign_uniform: tf.Tensor
) -> tf.Tensor:
    """A shift in pixels, as ImageDataGenerator draws it from a range of this type and size."""
    sign = 1 - 2 * _happens(sign_uniform, 0.5)
    if isinstance(shift_range, tuple):  # np.random.choice(list) times a random sign
        values = tf.constant(shift_range, tf.float64) * (side if max(shift_range) < 1 else 1)
        return tf.gather(values, tf.cast(_integer(uniform, 0, len(shift_range) - 1), tf.int32)) * sign
    if isinstance(shift_range, int) and shift_range >= 1:  # np.random.choice(int) times a random sign
        return _integer(uniform, 0, shift_range - 1) * sign
    return _symmetric(uniform, float(shift_range) * (side if shift_range < 1 else 1))


def _symmetric(uniform: tf.Tensor, limit: float) -> tf.Tensor:
    return _between(uniform, -float(limit), float(limit))


def _between(uniform: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return low + uniform * (high - low)


def _integer(uniform: tf.Tensor, low: int, high: int) -> tf.Tensor:
    """A whole number from low to high, both included."""
    return low + tf.minimum(tf.floor(uniform * (high - low + 1)), float(high - low))


def _happens(uniform: tf.Tensor, probability: float) -> tf.Tensor:
    """1.0 with this probability, else 0.0."""
    return tf.cast(uniform < probability, tf.float64)
