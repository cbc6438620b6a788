"""Small files that take much to decode, drawn here: (file name -> bytes)."""

import io
import struct
import zlib

from PIL import Image, features

from tests.helpers import odd_images

LARGE = 9_900  # pixels of a side: 98 million in all, just below the limit on pixels


def png(width: int, height: int, colour: int = 2, bits: int = 8) -> bytes:
    """A PNG of zeros. `colour`: 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGBA."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    packer, row = zlib.compressobj(9), bytes(1 + -(-width * samples * bits // 8))
    packed = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    palette = [(b"PLTE", bytes(3))] if colour == 3 else []
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *palette, (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff(tags: dict[int, tuple[int, int, int]], rest: bytes = b"") -> bytes:
    """A TIFF of one directory. `tags`: {tag: (type, count, value)}; `rest` begins at byte 8."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(rest)) + rest + directory


def tiff_tile(side: int) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile of `side` x `side`, packed."""
    packed = zlib.compress(bytes(1 << 20))  # the rest of it is not needed
    tags = {256: (4, 1, 16), 257: (4, 1, 16), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 2), 277: (3, 1, 3)}
    tags |= {322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, 8), 325: (4, 1, len(packed))}
    return tiff(tags, packed)


def tiff_tiles(count: int) -> bytes:
    """A TIFF of 10,000 x 10,000 pixels, cut into tiles of one pixel."""
    tags = {256: (4, 1, 10_000), 257: (4, 1, 10_000), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {322: (4, 1, 1), 323: (4, 1, 1), 324: (4, count, 8), 325: (4, count, 8)}
    return tiff(tags, bytes(4 * count))


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is there many times."""
    data = odd_images.save(Image.new("RGB", (side, side), (80, 90, 100)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    return data[:-2] + data[tables:-2] * (count - data.count(b"\xff\xda")) + data[-2:]


def icon(inner: bytes) -> bytes:
    """An .ico file that says 16 x 16, and holds a PNG of any size."""
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + inner


def webp(side: int) -> bytes:
    """A lossless WebP whose header says side x side: its 14 bits of width and of height begin at bit 168."""
    data = bytearray(odd_images.save(Image.new("RGB", (1, 1)), "WEBP", lossless=True))
    (bits,) = struct.unpack_from("<I", data, 21)
    struct.pack_into("<I", data, 21, bits & 0xF0000000 | (side - 1) << 14 | (side - 1))
    return bytes(data)


def refused() -> dict[str, tuple[bytes, str]]:
    """Files that are refused before they are decoded, with the beginning of the reason."""
    files = {
        "pixels.png": (odd_images.bomb(), "over the limit of 100,000,000 pixels"),
        "tile.tif": (tiff_tile(20_000), "TIFF whose strips or tiles take 1,600 MB"),
        "tiles.tif": (tiff_tiles(4_000_000), "TIFF whose strips or tiles take 2,000 MB"),
        "loop.tif": (b"II*\0" + struct.pack("<IH", 8, 0xFFFF), "damaged TIFF"),
        "scans.jpg": (scans(1_000, 883), "JPEG of 883 scans"),
        "scans_gray.jpg": (scans(64, 101), "JPEG of 101 scans"),
        "icon.ico": (icon(png(LARGE + 200, LARGE + 200, 0)), "ICO of 102,010,000 pixels"),
    }
    if features.check("webp"):
        files["pixels.webp"] = webp(LARGE), "WEBP of 9900x9900"
    return files


def packed(side: int) -> dict[str, bytes]:
    """Small files of side x side pixels, in each format that packs them well."""
    gray, colour = Image.new("L", (side, side)), Image.new("RGB", (side, side))
    stream = io.BytesIO()
    gray.convert("CMYK").save(stream, "JPEG", progressive=True)
    files = {
        "gray.jpg": odd_images.save(gray, "JPEG"),
        "progressive.jpg": odd_images.save(colour, "JPEG", progressive=True, subsampling=0),
        "cmyk.jpg": stream.getvalue(),
        "turned.jpg": odd_images.save(colour, "JPEG", progressive=True, exif=odd_images.exif(6)),
        "rgb.png": png(side, side, 2),
        "alpha.png": png(side, side, 6),
        "deep.png": png(side, side, 0, 16),
        "bits.png": png(side, side, 3, 1),
        "packed.tif": odd_images.save(colour.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
        "still.gif": odd_images.save(gray, "GIF"),
    }
    if features.check("webp"):
        files["photo.webp"] = odd_images.save(colour, "WEBP", lossless=True, quality=0)
    if features.check("jpg_2000"):
        files["photo.jp2"] = odd_images.save(colour, "JPEG2000")
    if features.check("avif"):
        files["photo.avif"] = odd_images.save(colour, "AVIF", speed=10)
    return files
