"""Random draws of an augmentation: (seed pair per image) -> parameters per image.

Stateless: a draw is a function of the image's seed pair and the augmentation alone, so neither
the batch, nor the position in it, nor the device changes what happens to an image. Parameters
are named and distributed as in Keras's `ImageDataGenerator.get_random_transform`.
"""

import dataclasses
import math

import tensorflow as tf

from deepduel.warp import MAX_ZOOM

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_KEY_PARITY = 0x1BD11BDA

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
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What may happen to an image; the first ten as in `keras.preprocessing.image.ImageDataGenerator`.

    Attributes:
      rotation_range: degrees; the angle is uniform in ±rotation_range.
      width_shift_range, height_shift_range: below 1 a share of the width or height, uniform in ±;
        from 1 on pixels: a float uniform in ±, an int n any of the whole numbers 0..n-1 with
        either sign. `width_shift_range` draws `ty` and `height_shift_range` draws `tx`, as
        ImageDataGenerator does (its `tx` moves along the columns, see `apply_transform`).
      shear_range: degrees, uniform in ±.
      zoom_range: a share, for factors uniform in [1 - zoom_range, 1 + zoom_range], or the factors'
        (lowest, highest); one factor per direction; above 1 shrinks the picture.
      horizontal_flip, vertical_flip: each with probability one half.
      brightness_range: (lowest, highest) factor, or None; pixels become 8-bit whole numbers.
      fill_mode: "nearest", what lies outside repeats the edge.
      quarter_turns: a whole number of quarter turns, 0 to 3; images (or crops) must be square.
      shift_pixels: whole pixels, each direction uniform in ±shift_pixels.
      crop_size: side in pixels of a square cut out at a random place (in evaluation: the
        centre); 0 for none.
      blur_sigma: (lowest, highest) standard deviation of a Gaussian blur in pixels of the output,
        or None.
      blur_probability: share of images that are blurred.
      jpeg_quality: (lowest, highest) quality 1..100 of a JPEG compression (4:2:0), or None.
      jpeg_probability: share of images that are compressed.
    """

    rotation_range: float = 0.0
    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    shear_range: float = 0.0
    zoom_range: float | tuple[float, float] = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness_range: tuple[float, float] | None = None
    fill_mode: str = "nearest"
    quarter_turns: bool = False
    shift_pixels: int = 0
    crop_size: int = 0
    blur_sigma: tuple[float, float] | None = None
    blur_probability: float = 1.0
    jpeg_quality: tuple[int, int] | None = None
    jpeg_probability: float = 1.0

    def __post_init__(self):
        for name in ("zoom_range", "brightness_range", "blur_sigma", "jpeg_quality"):
            value = getattr(self, name)
            if isinstance(value, list):  # JSON and Keras configurations know no tuples
                object.__setattr__(self, name, tuple(value))
        for name in ("rotation_range", "width_shift_range", "height_shift_range", "shear_range"):
            _check_number(name, getattr(self, name), 0, math.inf)
        _check_number("shear_range", self.shear_range, 0, 90)
        _check_pair("zoom_range", self.zooms, 0, MAX_ZOOM)
        if self.zooms[0] == 0:
            raise ValueError(f"zoom_range={self.zoom_range!r}: the lowest factor must be above 0")
        if self.brightness_range is not None:
            _check_pair("brightness_range", self.brightness_range, 0, math.inf)
        for name in ("horizontal_flip", "vertical_flip", "quarter_turns"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: must be True or False")
        if self.fill_mode != "nearest":
            raise ValueError(f"fill_mode={self.fill_mode!r}: only 'nearest' is there")
        for name in ("shift_pixels", "crop_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be a whole number from 0 on")
        if self.blur_sigma is not None:
            _check_pair("blur_sigma", self.blur_sigma, 0, 16)
        if self.jpeg_quality is not None:
            _check_pair("jpeg_quality", self.jpeg_quality, 1, 100)
        _check_number("blur_probability", self.blur_probability, 0, 1)
        _check_number("jpeg_probability", self.jpeg_probability, 0, 1)

    @property
    def zooms(self) -> tuple[float, float]:
        """The lowest and the highest zoom factor."""
        if isinstance(self.zoom_range, (int, float)):
            return 1 - self.zoom_range, 1 + self.zoom_range
        return self.zoom_range


def _check_number(name: str, value, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a number from {low} to {high}")
    if value == math.inf:
        raise ValueError(f"{name}={value!r}: must be finite")


def _check_pair(name: str, value, low: float, high: float) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{name}={value!r}: must be two numbers (lowest, highest)")
    for number in value:
        _check_number(name, number, low, high)
    if value[0] > value[1]:
        raise ValueError(f"{name}={value!r}: the lowest comes first")


PRESETS: dict[str, Augmentation] = {
    "none": Augmentation(),
    # The original experiment's ImageDataGenerator.
    "original": Augmentation(
        rotation_range=30,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=0.1,
        zoom_range=0.3,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.3, 1.7),
    ),
    # Pixels are moved, never mixed: the traces of a generator or a sensor stay as they are.
    "forensic": Augmentation(horizontal_flip=True, vertical_flip=True, quarter_turns=True, shift_pixels=8),
    # `forensic`, and what happens to pictures on their way through the web.
    "robust": Augmentation(
        horizontal_flip=True,
        vertical_flip=True,
        quarter_turns=True,
        shift_pixels=8,
        blur_sigma=(0.0, 1.5),
        blur_probability=0.2,
        jpeg_quality=(60, 100),
        jpeg_probability=0.5,
    ),
    "light": Augmentation(
        rotation_range=10,
        width_shift_range=0.05,
        height_shift_range=0.05,
        zoom_range=0.1,
        horizontal_flip=True,
        brightness_range=(0.8, 1.2),
    ),
}


def threefry(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]):
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


def uniforms(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """Uniform random numbers per image, from its seed pair alone.

    Args:
      seeds: int32 [B, 2].
      count: numbers per image; the first ones stay the same when it grows.

    Returns:
      float32 [B, count] in [0, 1), multiples of 2**-24.
    """
    key = tf.bitcast(tf.cast(seeds, tf.int32), tf.uint32)
    blocks = tf.range((count + 1) // 2, dtype=tf.int32)[None, :]
    counter = tf.cast(blocks, tf.uint32)
    words = tf.stack(threefry((key[:, :1], key[:, 1:]), (counter, tf.zeros_like(counter))), axis=-1)
    words = tf.reshape(words, [tf.shape(words)[0], words.shape[1] * 2])[:, :count]
    top_bits = tf.bitwise.right_shift(words, tf.constant(8, tf.uint32))
    return tf.cast(tf.cast(top_bits, tf.int32), tf.float32) * 2.0**-24


def draw(augmentation: Augmentation, seeds: tf.Tensor, height: int, width: int) -> dict[str, tf.Tensor]:
    """Draws what happens to each image.

    Args:
      augmentation: the ranges.
      seeds: int32 [B, 2], one pair per image.
      height, width: the images' size in pixels.

    Returns:
      float32 [B] per parameter, named as `apply_transform` takes them. Parameters that the
      augmentation leaves at rest are not in it. Computed in float64, so that eager, compiled and
      accelerator runs round to the same float32.
    """
    values = tf.cast(uniforms(seeds, max(_STREAMS.values()) + 1), tf.float64)
    uniform = {name: values[:, stream] for name, stream in _STREAMS.items()}
    spec = augmentation
    frame = (spec.crop_size, spec.crop_size) if spec.crop_size else (height, width)
    out = {}

    def between(name, low, high):
        out[name] = low + uniform[name] * (high - low)

    def whole(name, low, high):  # low..high, both included
        out[name] = low + tf.minimum(tf.floor(uniform[name] * (high - low + 1)), float(high - low))

    if spec.rotation_range:
        between("theta", -float(spec.rotation_range), float(spec.rotation_range))
    for name, reach, side in (
        ("tx", spec.height_shift_range, frame[0]),
        ("ty", spec.width_shift_range, frame[1]),
    ):
        if isinstance(reach, int) and reach >= 1:  # as np.random.choice(int) times a random sign
            whole(name, 0, reach - 1)
            out[name] *= 1 - 2 * tf.cast(uniform[f"{name}_sign"] < 0.5, tf.float64)
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


def check_crop(crop_size: int, height: int, width: int) -> None:
    """Raises ValueError when a crop does not fit into the images."""
    if crop_size > min(height, width):
        raise ValueError(
            f"crop_size={crop_size}: larger than the images ({height}x{width}); choose at most "
            f"{min(height, width)}"
        )
