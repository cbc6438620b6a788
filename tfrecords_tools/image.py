"""One image: bytes as found -> bytes that every reader decodes to the right pixels, or a reason why not.

`check` decides what may enter the shards; whatever it accepts, `decode` turns into upright RGB
pixels, uint8 [H, W, 3]. Alpha is dropped, the first frame of an animation stands for all, embedded
colour profiles are kept but not applied: what `PIL.Image.convert("RGB")` gives, and training tools expect.
"""

import dataclasses
import io
import threading
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from tfrecords_tools import jpeg
from tfrecords_tools.cli import UsageError

MAX_PIXELS = 100_000_000  # beyond it (a 10,000 x 10,000 image, 300 MB decoded) it is a bomb or a mistake
MAX_FILE_BYTES = 1 << 29
# EPS and PDF would run other programs, the rest of Pillow's list nobody trains on.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA")
ENCODINGS = ("keep", "jpeg", "png", "raw")
FITS = ("resize", "crop", "pad")
_HARMLESS = ("Invalid SOS parameters", "Unknown Adobe color transform", "Warning: unknown JFIF revision")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_scratch = threading.local()


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """An accepted image.

    Attributes:
      data: the bytes to store: JPEG, PNG, or height*width*3 raw uint8.
      height, width: upright pixels.
      encoding: "jpeg", "png" or "raw".
      note: why the original bytes were not kept; "" when they were, or were not asked for.
    """

    data: bytes
    height: int
    width: int
    encoding: str
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """An image that may not enter, and why."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How images are stored.

    Attributes:
      encoding: "keep" the original bytes where they decode to the right pixels, else PNG;
        "jpeg", "png", "raw": every image in that form.
      image_size: side in pixels of the stored square; 0 leaves sizes alone.
      fit: how an image gets that square: "resize" (aspect not kept), "crop" (shorter side
        scaled, centre cut out), "pad" (longer side scaled, black around).
      quality: of "jpeg", 1..100.
      max_pixels: larger images are rejected before they are decoded.
    """

    encoding: str = "keep"
    image_size: int = 0
    fit: str = "resize"
    quality: int = 95
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        if self.encoding not in ENCODINGS:
            raise UsageError(f"--encoding must be one of {', '.join(ENCODINGS)}, not {self.encoding!r}")
        if self.fit not in FITS:
            raise UsageError(f"--fit must be one of {', '.join(FITS)}, not {self.fit!r}")
        if not 0 <= self.image_size <= 8192:
            raise UsageError(f"--image_size is in pixels, 0 (as it is) to 8192, not {self.image_size}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality is 1 to 100, not {self.quality}")
        if self.image_size and self.encoding == "keep":
            raise UsageError(
                "--encoding=keep stores the original bytes and so cannot change their size; "
                "with --image_size choose --encoding=jpeg, png or raw"
            )
        if self.encoding == "raw" and not self.image_size:
            raise UsageError(
                "--encoding=raw needs --image_size: raw pixels carry no size, so all must have one"
            )


KEEP = Recipe()


def check(data: bytes, recipe: Recipe = KEEP) -> Checked | Rejected:
    """Decodes the whole image once, and gives what to store. Never raises on bad bytes."""
    if not data:
        return Rejected("empty file (0 bytes)")
    if data[:3] == b"\xff\xd8\xff":
        header = jpeg.scan(data)
        if header is not None and header.height * header.width > recipe.max_pixels:
            return _too_large(header.height, header.width, recipe)
    else:
        header = None
    try:
        if header is not None and header.plain:
            return _check_plain_jpeg(data, header, recipe)
        return _check_other(data, recipe)
    except MemoryError:
        return Rejected("decoding it takes more memory than there is")
    except Exception as error:  # decoders of hostile bytes raise anything: SyntaxError, struct.error, …
        return Rejected(f"damaged or unreadable image: {_one_line(error)}")


def decode(data: bytes | memoryview, *, fast: bool = False, out: np.ndarray | None = None) -> np.ndarray:
    """Bytes that `check` accepted (JPEG or PNG) -> upright RGB pixels, uint8 [H, W, 3].

    Args:
      data: the encoded image.
      fast: JPEG only: faster, slightly inexact DCT and upsampling. Otherwise equal to Pillow's pixels.
      out: contiguous uint8 [H, W, 3] to decode into, or None.

    Raises:
      ValueError: the bytes are no such image, or `out` has another shape.
    """
    if bytes(data[:2]) == b"\xff\xd8":
        if out is not None:
            height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
            _require_shape(out, height, width)
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=fast, fastupsample=fast, buffer=out, strict=False)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            pixels = np.asarray(_to_rgb(opened))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not a JPEG or PNG image: {error}") from error
    if out is None:
        return pixels
    _require_shape(out, *pixels.shape[:2])
    out[...] = pixels
    return out


def _check_plain_jpeg(data: bytes, header: jpeg.Header, recipe: Recipe) -> Checked | Rejected:
    """A JPEG whose bytes the pipeline decodes to upright RGB as they are."""
    keep = recipe.encoding == "keep"
    # Keeping needs only the proof that all of it decodes. At 1/8 of the size every bit is read and every
    # coefficient decoded, which is where damage shows; only the transform to pixels, which cannot fail,
    # is less.
    scale, least = (8, 1) if keep else (1, 0)
    size = -(-header.height // scale), -(-header.width // scale)
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=keep, fastupsample=keep, min_height=least, min_width=least,
            buffer=_buffer(size[0] * size[1] * 3),
        )  # fmt: skip
    except ValueError as error:
        if str(error).startswith(_HARMLESS):  # and fatal to simplejpeg: only Pillow reads on
            return _check_other(data, recipe)
        return Rejected(f"damaged JPEG: {_one_line(error)}")
    if pixels.shape[:2] != size:
        return Rejected("damaged JPEG: it has two sizes")
    if keep:
        return Checked(data, header.height, header.width, "jpeg")
    return _encode(Image.fromarray(pixels), recipe.encoding, recipe, "")


def _check_other(data: bytes, recipe: Recipe) -> Checked | Rejected:
    """Whatever else Pillow reads."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and not _register_heif():
        return Rejected("HEIF/HEIC image: reading it needs pip install pillow-heif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, and its own bomb limit
        try:
            opened = Image.open(io.BytesIO(data), formats=_formats())
        except Image.DecompressionBombError as error:
            return Rejected(f"over the limit of {recipe.max_pixels:,} pixels: {_one_line(error)}")
        except UnidentifiedImageError:
            return Rejected(f"not an image (begins with {bytes(data[:8])!r})")
        with opened:
            width, height = opened.size
            if height * width > recipe.max_pixels:
                return _too_large(height, width, recipe)
            return _take(opened, data, recipe)


def _take(opened: Image.Image, data: bytes, recipe: Recipe) -> Checked | Rejected:
    kind = "JPEG" if opened.format == "MPO" else opened.format
    frames = getattr(opened, "n_frames", 1) if kind != "JPEG" else 1
    orientation = opened.getexif().get(0x0112, 1)
    mode = opened.mode
    if mode in ("F", "I") and kind != "PNG":
        return Rejected(f"{kind} with 32-bit samples: they have no defined 8-bit range")
    opened.load()
    plain = mode in ("RGB", "L") and frames == 1 and orientation in (0, 1)
    plain = plain and kind == "PNG" and data[24] == 8 and "transparency" not in opened.info
    if recipe.encoding == "keep" and plain:
        return Checked(data, opened.height, opened.width, "png")
    upright = _to_rgb(ImageOps.exif_transpose(opened))
    if recipe.encoding != "keep":
        return _encode(upright, recipe.encoding, recipe, "")
    return _encode(upright, "png", recipe, _why(kind, mode, data, frames, orientation))


def _why(kind: str, mode: str, data: bytes, frames: int, orientation: int) -> str:
    """The reason why an image's own bytes are not stored."""
    words = [kind]
    if kind == "PNG" and data[24] == 16:
        words.append("of 16 bits")
    elif kind in ("PNG", "JPEG") and mode not in ("RGB", "L"):
        words.append({"P": "with palette", "RGBA": "with alpha", "LA": "with alpha"}.get(mode, mode))
    if frames > 1:
        words.append("animated, first frame")
    if orientation not in (0, 1):
        words.append(f"EXIF orientation {orientation}")
    if words == ["PNG"]:
        words.append("with transparency")
    if words == ["JPEG"]:
        header = jpeg.scan(data)
        words.append("unusual coding" if header is None else header.coding)
    return ", ".join(words)


def _to_rgb(opened: Image.Image) -> Image.Image:
    if opened.mode.startswith("I"):  # 16-bit gray: the high byte, as libpng and Pillow do for 16-bit RGB
        high = np.asarray(opened).astype(np.int64).clip(0, 0xFFFF) >> 8
        opened = Image.fromarray(high.astype(np.uint8))
    return opened if opened.mode == "RGB" else opened.convert("RGB")


def _encode(upright: Image.Image, encoding: str, recipe: Recipe, note: str) -> Checked:
    """Upright RGB -> the recipe's size and encoding."""
    if recipe.image_size and upright.size != (recipe.image_size, recipe.image_size):
        upright = _fit(upright, recipe.image_size, recipe.fit)
    pixels = np.ascontiguousarray(upright)
    height, width = pixels.shape[:2]
    if encoding == "raw":
        return Checked(pixels.tobytes(), height, width, "raw", note)
    if encoding == "jpeg":
        # 4:4:4: halving the colour resolution would blur what tells real from generated.
        coded = simplejpeg.encode_jpeg(pixels, recipe.quality, "RGB", "444", fastdct=False)
        return Checked(coded, height, width, "jpeg", note)
    stream = io.BytesIO()
    upright.info = {}  # nothing of the original's metadata: the pixels are final
    upright.save(stream, "PNG", compress_level=6)
    return Checked(stream.getvalue(), height, width, "png", note)


def _fit(upright: Image.Image, side: int, fit: str) -> Image.Image:
    size = (side, side)
    if fit == "crop":
        return ImageOps.fit(upright, size, Image.Resampling.BICUBIC)
    if fit == "pad":
        return ImageOps.pad(upright, size, Image.Resampling.BICUBIC, color=(0, 0, 0))
    return upright.resize(size, Image.Resampling.BICUBIC)


def _buffer(size: int) -> np.ndarray:
    """Scratch pixels, kept between images: fresh pages would cost as much as decoding does."""
    held = getattr(_scratch, "buffer", None)
    if held is None or held.size < size:
        _scratch.buffer = held = np.empty(max(size, 1 << 20), np.uint8)
    return held


def _require_shape(out: np.ndarray, height: int, width: int) -> None:
    if out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(
            f"`out` must be contiguous uint8 [{height}, {width}, 3] for this image, "
            f"not {out.dtype} {list(out.shape)}"
        )


def _formats() -> tuple[str, ...]:
    Image.init()  # Pillow loads most of its formats late, and knows no format before
    return tuple(name for name in (*FORMATS, "HEIF") if name in Image.OPEN)


def _register_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _too_large(height: int, width: int, recipe: Recipe) -> Rejected:
    return Rejected(f"{width}x{height} pixels: over the limit of {recipe.max_pixels:,} pixels")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
