"""Which random changes training images undergo: `Augmentation`.

Each field is one parameter and a row of the table that flags, checks, random streams and documentation
come from (`parameters`). Named as in `keras.preprocessing.image.ImageDataGenerator`, and with its meaning,
where it has the parameter. `draws` draws from the ranges, `transform` applies what was drawn.
"""

import dataclasses
from dataclasses import field

from deepduel.augmentation.parameters import (
    BOOL,
    CHOICE,
    INTEGER,
    NUMBER,
    OPTIONAL_PAIR,
    SHIFT,
    ZOOM,
    changed,
    check,
    docstring,
    parameters,
    row,
    text_of,
    zoom_factors,
)

MAX_ZOOM = 16.0  # beyond it fixed-point coordinates could leave their 32 image sides
FILL_MODES = ("nearest", "constant", "reflect", "wrap")


@dataclasses.dataclass(frozen=True, eq=False)
class Augmentation:
    """The ranges that random changes of an image are drawn from; the defaults change nothing.

    `help(Augmentation)` and the page "Augmenting" of the documentation describe each parameter. Two are
    equal if they are written alike: the shifts 5 and 5.0 are not the same.

    Raises:
      ValueError: a value is outside its parameter's limits.

    Example:
      >>> str(Augmentation(rotation_range=15, brightness_range=(0.5, 1.5)))
      'rotation_range=15, brightness_range=0.5,1.5'
    """

    rotation_range: float = field(
        default=0.0,
        metadata=row(
            NUMBER, "degrees", "Random rotation by up to this angle either way.", streams={"theta": 0}
        ),
    )
    # ImageDataGenerator draws ty from width_shift_range and tx from height_shift_range, and its tx moves
    # along the columns (see `transform.apply_transform`).
    width_shift_range: float | tuple[float, ...] = field(
        default=0.0,
        metadata=row(
            SHIFT,
            "share or pixels",
            "Shift as ImageDataGenerator does. A number below 1 is a share of the width and a float from "
            "1 on a number of pixels, both uniform between minus and plus this value; an integer N "
            "shifts by 0 to N-1 pixels in either direction. Of several numbers, one is drawn and gets a "
            "random sign; they are shares if all are below 1.",
            streams={"ty": 2, "ty_sign": 19},
        ),
    )
    height_shift_range: float | tuple[float, ...] = field(
        default=0.0,
        metadata=row(
            SHIFT,
            "share or pixels",
            "Like width_shift_range, for the height and along the other axis.",
            streams={"tx": 1, "tx_sign": 18},
        ),
    )
    shear_range: float = field(
        default=0.0,
        metadata=row(
            NUMBER, "degrees", "Random shear by up to this angle either way.", high=90, streams={"shear": 3}
        ),
    )
    zoom_range: float | tuple[float, float] = field(
        default=0.0,
        metadata=row(
            ZOOM,
            "share or factors",
            "Zoom each direction by a random factor, uniform in 1 ± this share or between two factors "
            "such as 0.8,1.2; a factor above 1 shrinks the picture.",
            high=MAX_ZOOM,
            streams={"zx": 4, "zy": 5},
        ),
    )
    horizontal_flip: bool = field(
        default=False,
        metadata=row(
            BOOL,
            "",
            "Mirror left to right with a probability of one half: true or false.",
            streams={"flip_horizontal": 6},
        ),
    )
    vertical_flip: bool = field(
        default=False,
        metadata=row(
            BOOL,
            "",
            "Mirror top to bottom with a probability of one half: true or false.",
            streams={"flip_vertical": 7},
        ),
    )
    channel_shift_range: float = field(
        default=0.0,
        metadata=row(
            NUMBER,
            "grey levels",
            "Add a random number, uniform between minus and plus this value, to all pixels, clipped to "
            "the image's own range of values.",
            high=255,
            streams={"channel_shift_intensity": 20},
        ),
    )
    brightness_range: tuple[float, float] | None = field(
        default=None,
        metadata=row(
            OPTIONAL_PAIR,
            "factors",
            "Multiply 8-bit pixels by a random factor in a range such as 0.5,1.5; none disables it.",
            streams={"brightness": 8},
        ),
    )
    fill_mode: str = field(
        default="nearest",
        metadata=row(
            CHOICE,
            "",
            "How to fill pixels outside the image: nearest repeats the edge, reflect mirrors the image, "
            "wrap repeats it, constant uses the grey level cval.",
            choices=FILL_MODES,
            needs=(
                "rotation_range",
                "width_shift_range",
                "height_shift_range",
                "shear_range",
                "zoom_range",
                "shift_pixels",
            ),
        ),
    )
    cval: float = field(
        default=0.0,
        metadata=row(
            NUMBER,
            "grey level",
            "Grey level of pixels outside the image with fill_mode=constant.",
            high=255,
            needs=("fill_mode=constant",),
        ),
    )
    quarter_turns: bool = field(
        default=False,
        metadata=row(
            BOOL,
            "",
            "Rotate by 0, 90, 180 or 270 degrees at random, without interpolation: true or false. Images "
            "or crops must be square.",
            streams={"quarter_turns": 9},
        ),
    )
    shift_pixels: int = field(
        default=0,
        metadata=row(
            INTEGER,
            "pixels",
            "Shift each direction by a random number of whole pixels, uniform between minus and plus "
            "this value, without interpolation.",
            streams={"shift_y": 10, "shift_x": 11},
        ),
    )
    crop_size: int = field(
        default=0,
        metadata=row(
            INTEGER,
            "pixels",
            "Side of a square that is cut out at a random place; evaluation and prediction take the "
            "centre. 0 keeps the whole image.",
            streams={"crop_top": 12, "crop_left": 13},
        ),
    )
    blur_sigma: tuple[float, float] | None = field(
        default=None,
        metadata=row(
            OPTIONAL_PAIR,
            "pixels of the network's input",
            "Blur with a Gaussian of a standard deviation between two such as 0,1.5; none disables it.",
            high=16,
            streams={"blur_sigma": 14},
        ),
    )
    blur_probability: float = field(
        default=1.0,
        metadata=row(
            NUMBER,
            "",
            "Share of the images that are blurred.",
            high=1,
            needs=("blur_sigma",),
            streams={"blur_applied": 15},
        ),
    )
    jpeg_quality: tuple[int, int] | None = field(
        default=None,
        metadata=row(
            OPTIONAL_PAIR,
            "JPEG quality",
            "Compress as JPEG (4:2:0) with a quality between two such as 60,100; none disables it.",
            low=1,
            high=100,
            streams={"jpeg_quality": 16},
        ),
    )
    jpeg_probability: float = field(
        default=1.0,
        metadata=row(
            NUMBER,
            "",
            "Share of the images that are compressed.",
            high=1,
            needs=("jpeg_quality",),
            streams={"jpeg_applied": 17},
        ),
    )
    rand_augment: int = field(
        default=0,
        metadata=row(
            INTEGER,
            "",
            "Number of operations of keras-cv's RandAugment (arXiv 1909.13719) per image, after "
            "all other changes; 0 disables it.",
            high=10,
        ),
    )
    rand_augment_magnitude: float = field(
        default=0.5,
        metadata=row(
            NUMBER, "", "Mean strength of RandAugment's operations, 0 to 1.", high=1, needs=("rand_augment",)
        ),
    )

    def __post_init__(self) -> None:
        for name in parameters(self):
            value = getattr(self, name)
            if isinstance(value, list):  # JSON and Keras configurations know no tuples
                object.__setattr__(self, name, tuple(value))
        check(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Augmentation) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __str__(self) -> str:
        """The parameters that differ from their defaults, written as the flags of deepduel.train are."""
        return ", ".join(f"{name}={text_of(value)}" for name, value in changed(self).items())

    @property
    def is_identity(self) -> bool:
        """Whether no image is ever changed."""
        active = {name for name in changed(self) if not parameters(self)[name].needs}
        return not active or (active == {"zoom_range"} and self.zooms == (1, 1))

    @property
    def zooms(self) -> tuple[float, float]:
        """The lowest and the highest zoom factor."""
        return zoom_factors(self.zoom_range)

    @property
    def interpolates(self) -> bool:
        """Whether it moves pixels by other than whole numbers, so that they are interpolated."""
        warps = self.rotation_range or self.shear_range or self.zooms != (1, 1) or self.rand_augment
        return bool(warps or self.width_shift_range or self.height_shift_range)

    def check_image_size(self, height: int, width: int) -> None:
        """Raises ValueError if images of this size in pixels cannot be cropped or rotated as asked."""
        check_crop(self.crop_size, height, width)
        if self.quarter_turns and not self.crop_size and height != width:
            raise ValueError(f"quarter turns need square images, not {height}x{width}; set crop_size")


def check_crop(crop_size: int, height: int, width: int) -> None:
    """Raises ValueError if a crop is larger than the images."""
    if crop_size > min(height, width):
        raise ValueError(
            f"crop_size={crop_size}: larger than the images ({height}x{width}); choose at most "
            f"{min(height, width)}"
        )


Augmentation.__doc__ = docstring(Augmentation)
