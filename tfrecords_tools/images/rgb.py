"""An opened image -> upright RGB, uint8: its orientation, transparency, and samples of more than 8 bits."""

import dataclasses
import re

import numpy as np
from PIL import Image, ImageColor

from tfrecords_tools.errors import UsageError
from tfrecords_tools.images import jpeg
from tfrecords_tools.images.turning import TRANSPOSE

DROP, HIGH_BYTE = "drop", "high_byte"
DAMAGED = ("reject", "accept")
_ORIENTATION = 0x0112  # the tag of Exif 2.3
_PGM = re.compile(rb"P[25]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)")


@dataclasses.dataclass(frozen=True)
class PixelOptions:
    """How an image file becomes RGB pixels.

    Attributes:
      alpha: "drop" ignores transparency; a colour (a name, or "#rrggbb") is what transparent images lie on.
      depth: of grayscale samples of more than 8 bits: "high_byte" takes the upper 8 of 16 bits; "LOW:HIGH",
        such as "0:4095", scales this range of values to 0..255, which 32-bit samples need.
      damaged: "accept" repairs JPEGs that lack the end marker or have stray bytes before it, whose pixels
        are all there; "reject" takes none of them.
    """

    alpha: str = DROP
    depth: str = HIGH_BYTE
    damaged: str = "reject"

    def __post_init__(self) -> None:
        if self.alpha != DROP:
            try:
                ImageColor.getrgb(self.alpha)
            except ValueError:
                raise UsageError(
                    f"--alpha={self.alpha}: must be drop, the name of a colour such as white, or #rrggbb"
                ) from None
        if self.depth != HIGH_BYTE and (self.range is None or not self.range[0] < self.range[1]):
            raise UsageError(f"--depth={self.depth}: must be high_byte, or LOW:HIGH such as 0:4095")
        if self.damaged not in DAMAGED:
            raise UsageError(f"--damaged={self.damaged}: must be one of {', '.join(DAMAGED)}")

    @property
    def range(self) -> tuple[float, float] | None:
        """The values that become 0 and 255; None for the high byte."""
        low, _, high = self.depth.partition(":")
        try:
            return float(low), float(high)
        except ValueError:
            return None


DEFAULT = PixelOptions()


class NoPixels(ValueError):
    """An image whose samples do not say which 8-bit pixels they are."""


def orientation(opened: Image.Image, data: bytes) -> int:
    """The orientation that an image asks for, 1 (upright) to 8; 1 where its metadata is damaged."""
    header = jpeg.scan(data) if data[:2] == b"\xff\xd8" else None
    if header is not None:
        return header.orientation
    try:
        value = opened.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's parsers of metadata raise anything: SyntaxError, struct.error, …
        return 1
    return value if value in TRANSPOSE else 1


def upright(opened: Image.Image, data: bytes, options: PixelOptions = DEFAULT) -> Image.Image:
    """The pixels as RGB, turned by the orientation alone: other metadata is neither read nor written.

    Raises:
      NoPixels: the samples have no defined 8-bit range.
      OSError, SyntaxError and others: the image is damaged.
    """
    opened.load()
    turn = TRANSPOSE.get(orientation(opened, data))
    rgb = _to_rgb(opened, data, options)
    return rgb if turn is None else rgb.transpose(turn)


def is_deep(opened: Image.Image) -> bool:
    """Whether the image is grayscale with samples of more than 8 bits."""
    return opened.mode.startswith("I") or opened.mode == "F"


def bits_used(opened: Image.Image) -> int:
    """How many of the 16 bits of a deep grayscale image its largest value needs."""
    return max(0, int(np.asarray(opened).max())).bit_length()


def _to_rgb(opened: Image.Image, data: bytes, options: PixelOptions) -> Image.Image:
    if is_deep(opened):
        opened = _eight_bits(opened, data, options)
    elif options.range and _is_deep_colour(opened, data):
        raise NoPixels(f"{opened.format} in colour of 16 bits: --depth=LOW:HIGH is for grayscale")
    if options.alpha != DROP and ("A" in opened.mode or "transparency" in opened.info):
        background = Image.new("RGBA", opened.size, ImageColor.getrgb(options.alpha))
        return Image.alpha_composite(background, opened.convert("RGBA")).convert("RGB")
    return opened if opened.mode == "RGB" else opened.convert("RGB")


def _eight_bits(opened: Image.Image, data: bytes, options: PixelOptions) -> Image.Image:
    values = np.asarray(opened)
    if options.range is None:
        if opened.mode == "F" or (opened.mode == "I" and opened.format not in ("PNG", "PPM", None)):
            raise NoPixels(
                f"{opened.format} with 32-bit samples: they have no defined 8-bit range; --depth=LOW:HIGH "
                "gives one"
            )
        if values.dtype != np.uint16:
            values = values.clip(0, 0xFFFF)
        return Image.fromarray((values >> 8).astype(np.uint8))  # as libpng and Pillow do for 16-bit RGB
    low, high = options.range
    if opened.format == "PPM" and (header := _PGM.match(data)):  # Pillow has scaled them to 0..65535
        values = values * (int(header[1]) / 0xFFFF)
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return Image.fromarray(np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8))


def _is_deep_colour(opened: Image.Image, data: bytes) -> bool:
    if opened.format == "PNG":
        return data[24] == 16
    bits = opened.tag_v2.get(258, ()) if opened.format == "TIFF" else ()  # type: ignore[attr-defined]  # of TIFFs only
    return max(bits, default=8) > 8 if isinstance(bits, tuple) else False
