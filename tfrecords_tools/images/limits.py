"""What decoding one image may take, decided before anything is allocated.

The unit is the pixel of an ordinary format, `BYTES_PER_PIXEL` at the peak of decoding: Pillow's four bytes
per pixel, turned and converted copies, and the array. Formats whose decoders need more count for more; the
strips and tiles of TIFF files, which may be larger than their image, have a limit of their own.
"""

import struct

from PIL import Image

from tfrecords_tools.images import jpeg, tiff

BYTES_PER_PIXEL = 18  # so the 100 million pixels that are allowed by default take 1.8 GB
_BYTES_OF_FORMAT = {"WEBP": 22, "JPEG2000": 20}  # measured, as are the others' 11 to 18
_BYTES_PER_BLOCK = 500  # of a strip or a tile that Pillow lists
_SMALL_BYTES = 1 << 26  # that the strips or tiles of the smallest image may take


def reason_unopened(data: bytes, jpeg_header: jpeg.Header | None, max_pixels: int) -> str:
    """Why a file is not to be opened; "" when it may be.

    Args:
      jpeg_header: what `jpeg.scan` says of it if it is a JPEG.
    """
    if data[:3] == b"\xff\xd8\xff":
        return excessive_scans(data, jpeg_header)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        header = tiff.scan(data)
        if header is None:
            return "damaged TIFF: its directory cannot be read"
        needed = max(header.block_bytes, header.blocks * _BYTES_PER_BLOCK)
        limit = min(4 * max_pixels, 4 * header.image_bytes + _SMALL_BYTES)
        if needed > limit:
            return f"TIFF whose strips or tiles take {_megabytes(needed, limit)}"
    if data[:4] == b"\0\0\1\0" and (pixels := _icon_pixels(data)) > max_pixels:
        return f"ICO of {pixels:,} pixels: over the limit of {max_pixels:,} pixels"
    return ""


def reason_unloaded(opened: Image.Image, max_pixels: int) -> str:
    """Why an image that Pillow opened is not to be decoded; "" when it may be."""
    width, height = opened.size
    if height * width > max_pixels:
        return f"{width}x{height} pixels: over the limit of {max_pixels:,} pixels"
    needed = height * width * _BYTES_OF_FORMAT.get(str(opened.format), BYTES_PER_PIXEL)
    if needed > max_pixels * BYTES_PER_PIXEL:
        memory = _megabytes(needed, max_pixels * BYTES_PER_PIXEL)
        return f"{opened.format} of {width}x{height} pixels takes {memory}"
    return ""


def excessive_scans(data: bytes, header: jpeg.Header | None) -> str:
    """Why a JPEG has too many scans; "" when it does not."""
    scans = jpeg.excessive_scans(data, header)
    return f"JPEG of {scans:,} scans: decoding it would take too long" if scans else ""


def _megabytes(needed: int, limit: int) -> str:
    return f"{needed / 1e6:,.0f} MB to decode: over the limit of {limit / 1e6:,.0f} MB"


def _icon_pixels(data: bytes) -> int:
    """The most pixels of an image in an .ico file, by the images' own headers: its directory may be wrong."""
    most = 0
    try:
        for entry in range(6, 6 + 16 * struct.unpack_from("<H", data, 4)[0], 16):
            (start,) = struct.unpack_from("<I", data, entry + 12)
            if data[start : start + 4] == b"\x89PNG":
                width, height = struct.unpack_from(">II", data, start + 16)
            else:
                width, height = struct.unpack_from("<ii", data, start + 4)
            most = max(most, abs(width) * abs(height))
    except struct.error:
        pass
    return most
