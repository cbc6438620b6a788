"""What may happen to an image: `Augmentation`, ranges of random parameters, and the presets.

Named as in `keras.preprocessing.image.ImageDataGenerator` where it has the parameter, and with its
meaning. `deepduel.draws` draws from the ranges, `deepduel.augment` applies what was drawn.
"""

import dataclasses
import math

from deepduel.warp import MAX_ZOOM


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

    @property
    def resamples(self) -> bool:
        """Whether it may interpolate between pixels: moves them by other than whole numbers."""
        turned = self.rotation_range or self.shear_range or self.zooms != (1, 1)
        return bool(turned or self.width_shift_range or self.height_shift_range)


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
