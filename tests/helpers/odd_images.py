"""Odd images, drawn here: (file name -> bytes), and what the converter is to make of each."""

import base64
import io
import struct
import zlib

import numpy as np
from PIL import Image, features

# cjpeg -arithmetic -quality 90 of a 24x16 gradient: Pillow cannot write this coding.
ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00RO70|EjA0|NsD0|NvF2n7WM1O*BQ2L=cX3JeSj3JVJj4iXRz4iOFu3lJ6%5fc;@6%`B*"
    "7Z?^47!ni}6#v@*LjeN>1O)^I2?YfS6b%av6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6cqo-"
    "01*fP5C9kh0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0O;u7m9@Ta_XoUj3gf;F%a!Y&8_a<`0B&CGoYBj;pkVP<"
    "SE?Z-_XY3S`Zo1RxSpBIouNt1$6@k)qSI8C|Je"
)


def picture(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    """A smooth picture with a different top, bottom, left and right."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, kind: str, **options) -> bytes:
    """An image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    """An Exif block that says how the image is turned."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def png16(values: np.ndarray, *, colour: bool) -> bytes:
    """A 16-bit PNG, written by hand: Pillow writes no 16-bit colour. `values`: uint16 [H, W(, 3)]."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2 if colour else 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def interlaced() -> bytes:
    """An Adam7-interlaced 1x1 PNG: one pass holds the only pixel."""
    raw = bytearray(save(Image.new("RGB", (1, 1), (9, 80, 200)), "PNG"))
    raw[28] = 1
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    return bytes(raw)


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""
    raw = bytearray(save(Image.new("L", (1, 1)), "PNG"))
    raw[16:24] = struct.pack(">II", 60_000, 60_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    return bytes(raw)


def kept() -> dict[str, bytes]:
    """Files whose own bytes are to be stored."""
    base = picture()
    profile = b"an ICC profile, whatever it says" * 8
    return {
        "baseline.jpg": save(base, "JPEG", quality=90),
        "progressive.jpg": save(base, "JPEG", progressive=True),
        "gray.jpg": save(base.convert("L"), "JPEG"),
        "444.jpg": save(base, "JPEG", subsampling=0),
        "icc.jpg": save(base, "JPEG", icc_profile=profile),
        "upright_exif.jpg": save(base, "JPEG", exif=exif(1)),
        "trailing.jpg": save(base, "JPEG") + b"and something behind it" * 9,
        "rgb.jpg": save(base, "JPEG", keep_rgb=True),
        "one_pixel.jpg": save(picture(1, 1), "JPEG"),
        "jpeg_named.png": save(base, "JPEG"),
        "no_ending": save(base, "JPEG"),
        "plain.png": save(base, "PNG"),
        "gray.png": save(base.convert("L"), "PNG"),
        "interlaced.png": interlaced(),
    }


def reencoded() -> dict[str, tuple[bytes, str]]:
    """Files that are to be stored as PNG, with the reason."""
    base = picture()
    frames = [picture(seed=seed) for seed in (1, 2, 3)]
    deep = np.random.default_rng(1).integers(0, 65536, (6, 8, 3), np.uint16)
    files = {
        "cmyk.jpg": (save(base.convert("CMYK"), "JPEG"), "JPEG, CMYK"),
        "arithmetic.jpg": (ARITHMETIC, "JPEG, arithmetic-coded"),
        "deep.png": (png16(deep, colour=True), "PNG, of 16 bits"),
        "deep_gray.png": (png16(deep[..., 0], colour=False), "PNG, of 16 bits"),
        "palette.png": (save(base.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), "PNG, with palette"),
        "bits.png": (save(base.convert("1"), "PNG"), "PNG, 1"),
        "alpha.png": (save(base.convert("RGBA"), "PNG"), "PNG, with alpha"),
        "gray_alpha.png": (save(base.convert("LA"), "PNG"), "PNG, with alpha"),
        "see_through.png": (save(base, "PNG", transparency=(1, 2, 3)), "PNG, with transparency"),
        "photo.webp": (save(base, "WEBP", quality=80), "WEBP"),
        "moving.webp": (save(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
                        "WEBP, animated, first frame"),
        "still.gif": (save(base, "GIF"), "GIF"),
        "moving.gif": (save(frames[0], "GIF", save_all=True, append_images=frames[1:]),
                       "GIF, animated, first frame"),
        "moving.png": (save(frames[0], "PNG", save_all=True, append_images=frames[1:]),
                       "PNG, animated, first frame"),
        "photo.bmp": (save(base, "BMP"), "BMP"),
        "photo.tif": (save(base, "TIFF", compression="tiff_lzw"), "TIFF"),
        "turned.tif": (save(base, "TIFF", tiffinfo={0x0112: 6}), "TIFF, EXIF orientation 6"),
    }  # fmt: skip
    if features.check("avif"):  # Pillow has it from 11.3 on
        files["photo.avif"] = save(base, "AVIF", quality=80), "AVIF"
    files["turned_cmyk.jpg"] = (
        save(base.convert("CMYK"), "JPEG", exif=exif(6)), "JPEG, CMYK, EXIF orientation 6"
    )  # fmt: skip
    files["turned_rgb.jpg"] = (
        save(base, "JPEG", exif=exif(6), keep_rgb=True), "JPEG, EXIF orientation 6"
    )  # fmt: skip
    return files


def turned() -> dict[str, tuple[bytes, str]]:
    """JPEGs that are to be stored as upright JPEGs, with the reason."""
    same, anew = "blocks turned", "encoded anew in finer steps"
    cases = [(turn, 32, 48, 2, same) for turn in range(2, 9)]
    cases += [(6, 40, 48, 0, same), (6, 40, 48, 2, anew), (3, 36, 48, 0, anew), (8, 36, 48, 2, same)]
    cases += [(6, 31, 45, 2, anew), (5, 31, 45, 2, same), (2, 32, 48, 1, anew)]
    return {
        f"turned{turn}_{height}x{width}_{sampling}.jpg": (
            save(picture(height, width), "JPEG", exif=exif(turn), quality=95, subsampling=sampling),
            f"EXIF orientation {turn}, {how}",
        )
        for turn, height, width, sampling, how in cases
    }


def rejected() -> dict[str, tuple[bytes, str]]:
    """Files that may not enter, with the beginning of the reason."""
    jpeg = save(picture(64, 64), "JPEG", quality=95)
    png = save(picture(64, 64), "PNG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 1
    return {
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"this is no image at all, whatever its name says", "not an image"),
        "html.png": (b"<!DOCTYPE html><html>404 Not Found</html>", "not an image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "damaged JPEG: Premature end"),
        "almost.jpg": (jpeg[:-2], "damaged JPEG: Premature end"),
        "header.jpg": (jpeg[:20], "not an image"),
        "truncated.png": (png[: len(png) // 2], "damaged or unreadable image"),
        "flipped.png": (bytes(flipped), "damaged or unreadable image"),
        "bomb.png": (bomb(), "over the limit of 100,000,000 pixels"),
        "float.tif": (save(Image.new("F", (4, 4), 0.5), "TIFF"), "TIFF with 32-bit samples"),
    }
