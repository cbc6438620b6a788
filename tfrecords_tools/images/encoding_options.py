"""How images are stored: as they are or encoded anew, at their own size or all at one."""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import documents
from tfrecords_tools.images.rgb import DEFAULT, PixelOptions

MAX_PIXELS = 100_000_000  # beyond it (a 10,000 x 10,000 image, 300 MB decoded) it is a bomb or a mistake
ENCODINGS = ("keep", "jpeg", "png", "raw")
FITS = ("resize", "crop", "pad")
_UPRIGHT_JPEGS = 3  # plan_version since which turned JPEGs stay JPEGs


@dataclasses.dataclass(frozen=True)
class EncodingOptions:
    """How images are stored.

    Attributes:
      encoding: "keep" the original bytes where they decode to the right pixels, else PNG;
        "jpeg", "png", "raw": every image in that form.
      image_size: side in pixels of the stored square; 0 leaves sizes alone.
      fit: how an image gets that square: "resize" (aspect not kept), "crop" (shorter side
        scaled, centre cut out), "pad" (longer side scaled, black around).
      quality: of "jpeg", 1..100.
      max_pixels: larger images are rejected before they are decoded.
      pixels: how files become RGB pixels.
      turned: how "keep" stores JPEGs with an orientation: upright as "jpeg", or as "png" in folders of
        version 0.1.0.
    """

    encoding: str = "keep"
    image_size: int = 0
    fit: str = "resize"
    quality: int = 95
    max_pixels: int = MAX_PIXELS
    pixels: PixelOptions = DEFAULT
    turned: str = "jpeg"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise UsageError(f"--encoding must be one of {', '.join(ENCODINGS)}, not {self.encoding!r}")
        if self.fit not in FITS:
            raise UsageError(f"--fit must be one of {', '.join(FITS)}, not {self.fit!r}")
        if not 0 <= self.image_size <= 8192:
            raise UsageError(
                f"--image_size must be 1 to 8192 pixels, or 0 to keep sizes, not {self.image_size}"
            )
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality must be 1 to 100, not {self.quality}")
        if self.image_size and self.encoding == "keep":
            raise UsageError(
                "--encoding=keep stores the original bytes and so cannot change their size; "
                "with --image_size choose --encoding=jpeg, png or raw"
            )
        if self.encoding == "raw" and not self.image_size:
            raise UsageError(
                "--encoding=raw needs --image_size: raw pixels carry no size, so all must have one"
            )

    @classmethod
    def recorded(cls, options: Mapping[str, Any]) -> "EncodingOptions":
        """Those of a finished conversion.

        Args:
          options: the manifest's, with their values where they are not the default.

        Raises:
          ValueError: a value is not one that convert writes.
        """
        turned = "jpeg" if options.get("plan_version", _UPRIGHT_JPEGS) >= _UPRIGHT_JPEGS else "png"
        return documents.check({**options, "pixels": options, "turned": turned}, cls)

    def encode(self, upright: Image.Image) -> tuple[bytes, int, int, str]:
        """Upright RGB -> (bytes, height, width, "jpeg", "png" or "raw") in this size and encoding."""
        if self.image_size and upright.size != (self.image_size, self.image_size):
            upright = _fit(upright, self.image_size, self.fit)
        pixels = np.ascontiguousarray(upright)
        height, width = pixels.shape[:2]
        if self.encoding == "raw":
            return pixels.tobytes(), height, width, "raw"
        if self.encoding == "jpeg":
            # 4:4:4: halving the colour resolution would blur what tells real from generated.
            coded = simplejpeg.encode_jpeg(pixels, self.quality, "RGB", "444", fastdct=False)
            return coded, height, width, "jpeg"
        stream = io.BytesIO()
        upright.info = {}  # nothing of the original's metadata: the pixels are final
        upright.save(stream, "PNG", compress_level=6)
        return stream.getvalue(), height, width, "png"


KEEP = EncodingOptions()


def _fit(upright: Image.Image, side: int, fit: str) -> Image.Image:
    size = (side, side)
    if fit == "crop":
        return ImageOps.fit(upright, size, Image.Resampling.BICUBIC)
    if fit == "pad":
        return ImageOps.pad(upright, size, Image.Resampling.BICUBIC, color=(0, 0, 0))
    return upright.resize(size, Image.Resampling.BICUBIC)
