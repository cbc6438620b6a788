"""The bytes of an image file -> bytes that every reader decodes to the right pixels, or why it is rejected.

`check` decides what enters the shards; whatever it accepts, `decode` turns into upright RGB
pixels, uint8 [H, W, 3]; `pixels` gives the same at once. The first frame of an animation stands for
all, embedded colour profiles are kept but not applied, and alpha is dropped unless `PixelOptions`
say otherwise: what `PIL.Image.convert("RGB")` gives, and training tools expect.
"""

import dataclasses
import io
import struct
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from tfrecords_tools.images import description, jpeg, limits, rgb, turning
from tfrecords_tools.images.encoding_options import KEEP, MAX_PIXELS, EncodingOptions
from tfrecords_tools.images.scratch import scratch

MAX_FILE_BYTES = 1 << 29
# EPS and PDF would run other programs, the rest of Pillow's list nobody trains on.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA")
Result = TypeVar("Result")
FEW_BITS = 12  # of 16: what sensors of 12 bits use, and dark to the eye
DARK = f", {FEW_BITS} bits used at most"  # at the end of a note
_HARMLESS = ("Invalid SOS parameters", "Unknown Adobe color transform", "Warning: unknown JFIF revision")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


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
    """A rejected image, and why."""

    reason: str


def check(data: bytes, encoding: EncodingOptions = KEEP) -> Checked | Rejected:
    """Decodes the whole image once, and returns what to store. Never raises on bad bytes."""
    checked = _check(data, encoding)
    if isinstance(checked, Rejected) and encoding.pixels.damaged == "accept":
        return _repaired(data, checked, encoding) or checked
    return checked


def with_remedy(rejected: Rejected, data: bytes, encoding: EncodingOptions) -> Rejected:
    """The reason why `check` rejected an image file, with the flag by which it would be accepted."""
    if encoding.pixels.damaged == "reject" and _repaired(data, rejected, encoding):
        return Rejected(f"{rejected.reason}; --damaged=accept takes it")
    return rejected


def _repaired(data: bytes, rejected: Rejected, encoding: EncodingOptions) -> Checked | None:
    """A slightly damaged JPEG: it decodes once what is missing is there and what is stray is not."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    checked = (_check(repaired, encoding) for repaired in jpeg.repairs(data, rejected.reason))
    return next((one for one in checked if isinstance(one, Checked)), None)


def _check(data: bytes, encoding: EncodingOptions) -> Checked | Rejected:
    checked = _read(
        data,
        encoding.max_pixels,
        lambda header: _check_jpeg(data, header, encoding),
        lambda opened: _take(opened, data, encoding),
    )
    if isinstance(checked, Checked) and checked.height * checked.width > MAX_PIXELS:
        return Rejected(
            f"{checked.width}x{checked.height} pixels: readers decode at most {MAX_PIXELS:,}; "
            "store images smaller with --image_size"
        )
    return checked


def pixels(
    data: bytes, *, max_pixels: int = MAX_PIXELS, options: rgb.PixelOptions = rgb.DEFAULT
) -> np.ndarray | Rejected:
    """An image of any kind -> upright RGB pixels, uint8 [H, W, 3], those that are stored without loss.

    Rejects what `check` rejects, and never raises on bad bytes.
    """
    return _read(
        data,
        max_pixels,
        lambda header: _jpeg_pixels(data, header),
        lambda opened: np.asarray(rgb.upright(opened, data, options)),
    )


def _read(
    data: bytes,
    max_pixels: int,
    read_jpeg: Callable[[jpeg.Header], Result | Rejected | None],
    read_other: Callable[[Image.Image], Result | Rejected],
) -> Result | Rejected:
    """Reads an image with simplejpeg or Pillow; any error becomes a `Rejected`.

    Args:
      read_jpeg: takes the header of a JPEG of a common coding; None when only Pillow can tell.
      read_other: takes an image that Pillow opened.
    """
    if not data:
        return Rejected("empty file (0 bytes)")
    header = jpeg.scan(data) if data[:3] == b"\xff\xd8\xff" else None
    if header is not None and header.height * header.width > max_pixels:
        return Rejected(f"{header.width}x{header.height} pixels: over the limit of {max_pixels:,} pixels")
    if reason := limits.reason_unopened(data, header, max_pixels):
        return Rejected(reason)
    try:
        result = read_jpeg(header) if header is not None and header.common else None
        return _read_other(data, max_pixels, read_other) if result is None else result
    except rgb.NoPixels as error:
        return Rejected(str(error))
    except MemoryError:
        return Rejected("decoding it needs more memory than is available")
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
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not a JPEG or PNG image: {error}") from error
    if out is None:
        return pixels
    _require_shape(out, *pixels.shape[:2])
    out[...] = pixels
    return out


def png_size(data: bytes | memoryview) -> tuple[int, int]:
    """(height, width) by a PNG's header. Raises ValueError when it has none."""
    if bytes(data[:8]) != b"\x89PNG\r\n\x1a\n" or bytes(data[12:16]) != b"IHDR" or len(data) < 24:
        raise ValueError("not a PNG image")
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def upright_jpeg(data: bytes, header: jpeg.Header) -> Checked | Rejected | None:
    """A JPEG with an orientation -> the upright JPEG that is stored for it; None when it becomes a PNG."""
    if reason := limits.excessive_scans(data, header):
        return Rejected(reason)
    decoded = _proof(data, header)
    if decoded is None or isinstance(decoded, Rejected):
        return decoded
    turned = turning.upright(data, header)
    if turned is None:
        return None
    note = description.turned(header.orientation, turned.same_blocks)
    return Checked(turned.data, turned.height, turned.width, "jpeg", note)


def _check_jpeg(data: bytes, header: jpeg.Header, encoding: EncodingOptions) -> Checked | Rejected | None:
    if header.orientation == 1:
        return _check_plain(data, header, encoding)
    if encoding.encoding != "keep" or encoding.turned != "jpeg":
        return None
    return upright_jpeg(data, header)


def _check_plain(data: bytes, header: jpeg.Header, encoding: EncodingOptions) -> Checked | Rejected | None:
    """A JPEG whose bytes the pipeline decodes to upright RGB as they are."""
    keep = encoding.encoding == "keep"
    decoded = _proof(data, header) if keep else _plain_jpeg(data, header)
    if decoded is None or isinstance(decoded, Rejected):
        return decoded
    kept = Checked(data, header.height, header.width, "jpeg")
    return kept if keep else _encoded(Image.fromarray(decoded), encoding)


def _jpeg_pixels(data: bytes, header: jpeg.Header) -> np.ndarray | Rejected | None:
    if header.orientation == 1:
        return _plain_jpeg(data, header)
    turned = upright_jpeg(data, header)
    return decode(turned.data) if isinstance(turned, Checked) else turned


def _proof(data: bytes, header: jpeg.Header) -> np.ndarray | Rejected | None:
    """What `_plain_jpeg` says where only the proof is needed that all of it decodes.

    At 1/8 of the size every bit and coefficient is decoded, which is where damage shows.
    """
    size = -(-header.height // 8) * -(-header.width // 8) * 3
    return _plain_jpeg(data, header, scale=8, fast=True, buffer=scratch(size))


def _plain_jpeg(
    data: bytes, header: jpeg.Header, *, scale: int = 1, fast: bool = False, buffer: np.ndarray | None = None
) -> np.ndarray | Rejected | None:
    """Its pixels, sides divided by `scale` and rounded up; None when only Pillow reads on."""
    least = 1 if scale > 1 else 0  # as small as it gets, or as large as it is
    try:
        decoded = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=fast, fastupsample=fast, min_height=least, min_width=least, buffer=buffer
        )
    except ValueError as error:
        if str(error).startswith(_HARMLESS):  # and fatal to simplejpeg
            return None
        return Rejected(f"damaged JPEG: {_one_line(error)}")
    if decoded.shape[:2] != (-(-header.height // scale), -(-header.width // scale)):
        return Rejected("damaged JPEG: it has two sizes")
    return decoded


def _read_other(
    data: bytes, max_pixels: int, read: Callable[[Image.Image], Result | Rejected]
) -> Result | Rejected:
    """Whatever else Pillow reads."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and not _register_heif():
        return Rejected("HEIF/HEIC image: reading it needs pip install pillow-heif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, and its own bomb limit
        try:
            opened = Image.open(io.BytesIO(data), formats=_formats())
        except Image.DecompressionBombError as error:
            return Rejected(f"over the limit of {max_pixels:,} pixels: {_one_line(error)}")
        except UnidentifiedImageError:
            return Rejected(f"not an image (begins with {bytes(data[:8])!r})")
        with opened:
            if reason := limits.reason_unloaded(opened, max_pixels):
                return Rejected(reason)
            return read(opened)


def _take(opened: Image.Image, data: bytes, encoding: EncodingOptions) -> Checked:
    kind, mode = description.kind(opened), opened.mode
    animated = kind != "JPEG" and description.is_animated(opened, data)
    # Pillow turns TIFFs while it loads them, and knows the Exif block of PNGs only once they are loaded.
    orientation = rgb.orientation(opened, data) if kind == "TIFF" else 1
    opened.load()
    orientation = max(orientation, rgb.orientation(opened, data))
    plain = mode in ("RGB", "L") and not animated and orientation == 1
    plain = plain and kind == "PNG" and data[24] == 8 and "transparency" not in opened.info
    if encoding.encoding == "keep" and plain:
        return Checked(data, opened.height, opened.width, "png")
    bits = rgb.bits_used(opened) if rgb.is_deep(opened) and encoding.pixels.range is None else 16
    upright = rgb.upright(opened, data, encoding.pixels)
    note = description.why(kind, mode, data, animated, orientation) if encoding.encoding == "keep" else ""
    if bits <= FEW_BITS:
        note = f"{note or kind}{DARK}"
    return _encoded(upright, encoding, note)


def _encoded(upright: Image.Image, encoding: EncodingOptions, note: str = "") -> Checked:
    return Checked(*encoding.encode(upright), note)


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
