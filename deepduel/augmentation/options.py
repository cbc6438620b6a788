"""What may happen to an image: `Augmentation`, ranges of random parameters, and the presets.

Named as in `keras.preprocessing.image.ImageDataGenerator` where it has the parameter, and with its
meaning. `draws` draws from the ranges, `transform` applies what was drawn.
"""

import dataclasses
import math

MAX_ZOOM = 16.0  # beyond it fixed-point coordinates could leave their 32 image sides
FILL_MODES = ("nearest", "constant", "reflect", "wrap")


@dataclasses.dataclass(frozen=True, eq=False)
class Augmentation:
    """What may happen to an image; up to `cval` as in `keras.preprocessing.image.ImageDataGenerator`.

    Two are equal when they are written alike: the shifts 5 and 5.0 are not the same.

    Attributes:
      rotation_range: degrees; the angle is uniform in ±rotation_range.
      width_shift_range: below 1 a share of the width, uniform in ±; from 1 on pixels: a float uniform in ±,
        an int n any of the whole numbers 0..n-1 with either sign. Several numbers: one of them, with
        either sign; shares if all are below 1. Draws `ty`, and `height_shift_range` draws `tx`, as in
        ImageDataGenerator (its `tx` moves along the columns, see `apply_transform`).
      height_shift_range: the same for the height.
      shear_range: degrees, uniform in ±.
      zoom_range: a share, for factors uniform in [1 - zoom_range, 1 + zoom_range], or the factors'
        (lowest, highest); one factor per direction; above 1 shrinks the picture.
      horizontal_flip: left and right are swapped with probability one half.
      vertical_flip: top and bottom are swapped with probability one half.
      channel_shift_range: grey levels, uniform in ±, added to the whole image within its own range.
      brightness_range: (lowest, highest) factor, or None; pixels become 8-bit whole numbers.
      fill_mode: what lies outside the image: "nearest" repeats the edge, "reflect" mirrors, "wrap" begins
        anew, "constant" is `cval`.
      cval: grey level 0..255.
      quarter_turns: a whole number of quarter turns, 0 to 3; images (or crops) must be square.
      shift_pixels: whole pixels, each direction uniform in ±shift_pixels.
      crop_size: side in pixels of a square cut out at a random place (in evaluation: the
        centre); 0 for none.
      blur_sigma: (lowest, highest) standard deviation of a Gaussian blur in pixels of the output,
        or None.
      blur_probability: share of images that are blurred.
      jpeg_quality: (lowest, highest) quality 1..100 of a JPEG compression (4:2:0), or None.
      jpeg_probability: share of images that are compressed.
      rand_augment: operations of keras-cv's RandAugment (arXiv 1909.13719) per image, after all else; 0: off.
      rand_augment_magnitude: their mean strength, 0..1.
    """

    rotation_range: float = 0.0
    width_shift_range: float | tuple[float, ...] = 0.0
    height_shift_range: float | tuple[float, ...] = 0.0
    shear_range: float = 0.0
    zoom_range: float | tuple[float, float] = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    channel_shift_range: float = 0.0
    brightness_range: tuple[float, float] | None = None
    fill_mode: str = "nearest"
    cval: float = 0.0
    quarter_turns: bool = False
    shift_pixels: int = 0
    crop_size: int = 0
    blur_sigma: tuple[float, float] | None = None
    blur_probability: float = 1.0
    jpeg_quality: tuple[int, int] | None = None
    jpeg_probability: float = 1.0
    rand_augment: int = 0
    rand_augment_magnitude: float = 0.5

    def __post_init__(self) -> None:
        for name, value in self._items():
            if isinstance(value, list):  # JSON and Keras configurations know no tuples
                object.__setattr__(self, name, tuple(value))
        for name in ("rotation_range", "width_shift_range", "height_shift_range"):
            value = getattr(self, name)
            if isinstance(value, tuple) and value and name != "rotation_range":
                for number in value:
                    _check_number(name, number, -math.inf, math.inf)
            else:
                _check_number(name, value, 0, math.inf)
        _check_number("shear_range", self.shear_range, 0, 90)
        _check_number("channel_shift_range", self.channel_shift_range, 0, 255)
        _check_number("cval", self.cval, 0, 255)
        _check_pair("zoom_range", self.zooms, 0, MAX_ZOOM)
        if self.zooms[0] == 0:
            raise ValueError(f"zoom_range={self.zoom_range!r}: the lowest factor must be above 0")
        for name, low, high in (
            ("brightness_range", 0, math.inf), ("blur_sigma", 0, 16), ("jpeg_quality", 1, 100),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                _check_pair(name, getattr(self, name), low, high)
        for name in ("horizontal_flip", "vertical_flip", "quarter_turns"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}: must be True or False")
        if self.fill_mode not in FILL_MODES:
            raise ValueError(f"fill_mode={self.fill_mode!r}: must be one of {', '.join(FILL_MODES)}")
        for name, most in (("shift_pixels", math.inf), ("crop_size", math.inf), ("rand_augment", 10)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
                upward = "on" if most == math.inf else f"to {most}"
                raise ValueError(f"{name}={value!r}: must be a whole number from 0 {upward}")
        for name in ("blur_probability", "jpeg_probability", "rand_augment_magnitude"):
            _check_number(name, getattr(self, name), 0, 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Augmentation) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __str__(self) -> str:
        """What is not at rest, written as the flags of deepduel.train are; "" for nothing."""
        changed = [f"{name}={text_of(value)}" for name, value in self._items() if value != _DEFAULTS[name]]
        return ", ".join(changed)

    @property
    def at_rest(self) -> bool:
        """Whether nothing ever happens to an image."""
        idle = {"fill_mode", "cval", "blur_probability", "jpeg_probability", "rand_augment_magnitude"}
        moving = {name for name, value in self._items() if value != _DEFAULTS[name]} - idle
        return not moving or (moving == {"zoom_range"} and self.zooms == (1, 1))

    @property
    def zooms(self) -> tuple[float, float]:
        """The lowest and the highest zoom factor."""
        if isinstance(self.zoom_range, (int, float)):
            return 1 - self.zoom_range, 1 + self.zoom_range
        return self.zoom_range

    @property
    def resamples(self) -> bool:
        """Whether it may interpolate between pixels: moves them by other than whole numbers."""
        turned = self.rotation_range or self.shear_range or self.zooms != (1, 1) or self.rand_augment
        return bool(turned or self.width_shift_range or self.height_shift_range)

    def check_fits(self, height: int, width: int) -> None:
        """Raises ValueError when images of this size, in pixels, cannot be cropped or turned so."""
        check_crop(self.crop_size, height, width)
        if self.quarter_turns and not self.crop_size and height != width:
            raise ValueError(f"quarter turns need square images, not {height}x{width}; set crop_size")

    def _items(self) -> list[tuple[str, object]]:
        return [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Augmentation)}


def text_of(value: object) -> str:
    """(0.3, 1.7) -> "0.3,1.7", True -> "true"."""
    if isinstance(value, tuple):
        return ",".join(text_of(part) for part in value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check_crop(crop_size: int, height: int, width: int) -> None:
    """Raises ValueError when a crop does not fit into the images."""
    if crop_size > min(height, width):
        raise ValueError(
            f"crop_size={crop_size}: larger than the images ({height}x{width}); choose at most "
            f"{min(height, width)}"
        )


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a number from {low} to {high}")
    if value == math.inf:
        raise ValueError(f"{name}={value!r}: must be finite")


def _check_pair(name: str, value: object, low: float, high: float) -> None:
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


@dataclasses.dataclass(frozen=True, order=True)  # tf.nest sorts the keys of dictionaries
class Mixing:
    """How the images of a batch are mixed; with both, each image has an even chance of either.

    Attributes:
      mixup_alpha: MixUp (arXiv 1710.09412): the image's share is drawn from Beta(alpha, alpha), the
        partner shines through with the rest. 0: off; 0.2 is usual.
      cutmix_alpha: CutMix (arXiv 1905.04899): a rectangle of the partner covers a part of the image; the
        part is 1 - Beta(alpha, alpha) before the rectangle is cut off at the edge. 0: off; 1 is usual.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not (value == 0 or 0.01 <= value <= 100):
                raise ValueError(f"{field.name}={value!r}: must be 0 (off) or a number from 0.01 to 100")

    def __bool__(self) -> bool:
        return bool(self.mixup_alpha or self.cutmix_alpha)

    def __str__(self) -> str:
        given = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return ", ".join(f"{name}={value:g}" for name, value in given if value)
