"""The table "what convert accepts" of docs/converting.md, row by row."""

import io
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image

from tests.helpers import odd_images
from tfrecords_tools.images import image
from tfrecords_tools.images.encoding_options import EncodingOptions
from tfrecords_tools.images.rgb import PixelOptions

PICTURE = odd_images.picture(24, 32)
TABLE = pathlib.Path(__file__).parents[2] / "docs" / "converting.md"
GRAY16 = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)


def jpeg(**options) -> bytes:
    return odd_images.save(PICTURE, "JPEG", **options)


def turned_by_xmp() -> bytes:
    block = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'
    return jpeg()[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg()[2:]


def alpha(kind: str) -> bytes:
    return odd_images.save(PICTURE.convert("RGBA"), kind)


def animated() -> bytes:
    stream = io.BytesIO()
    PICTURE.save(stream, "GIF", save_all=True, append_images=[odd_images.picture(24, 32, seed=1)])
    return stream.getvalue()


ROWS = {
    "JPEG, baseline or progressive, colour or grayscale": (jpeg(progressive=True), {}, "kept"),
    "JPEG turned by Exif or XMP": (turned_by_xmp(), {}, "JPEG, upright"),
    "JPEG in CMYK": (odd_images.save(PICTURE.convert("CMYK"), "JPEG"), {}, "PNG"),
    "JPEG without its end marker": (jpeg()[:-2], {}, "rejected"),
    "JPEG without its end marker, `--damaged=accept`": (
        jpeg()[:-2], {"damaged": "accept"}, "JPEG, completed",
    ),
    "JPEG whose pixels are cut off": (jpeg()[:-60], {"damaged": "accept"}, "rejected"),
    "PNG of 8 bits, RGB or grayscale": (odd_images.save(PICTURE, "PNG"), {}, "kept"),
    "PNG with a palette": (odd_images.save(PICTURE.convert("P"), "PNG"), {}, "PNG"),
    "PNG or WebP with alpha": (alpha("WEBP"), {}, "PNG, alpha ignored"),
    "PNG or WebP with alpha, `--alpha=white`": (alpha("PNG"), {"alpha": "white"}, "PNG, on white"),
    "PNG, TIFF or PGM of 16 bits": (
        odd_images.save(Image.fromarray(GRAY16), "PNG"), {}, "PNG, the high byte",
    ),
    "PNG, TIFF or PGM of 16 bits, `--depth=0:4095`": (
        odd_images.save(Image.fromarray(GRAY16), "TIFF"), {"depth": "0:4095"}, "PNG, the range scaled",
    ),
    "TIFF of 32 bits": (odd_images.save(Image.fromarray(GRAY16.astype(np.float32)), "TIFF"), {}, "rejected"),
    "TIFF of 32 bits, `--depth=0:4095`": (
        odd_images.save(Image.fromarray(GRAY16.astype(np.float32)), "TIFF"), {"depth": "0:4095"},
        "PNG, the range scaled",
    ),
    "GIF, BMP, WebP, AVIF, JPEG 2000, PPM, ICO": (odd_images.save(PICTURE, "BMP"), {}, "PNG"),
    "GIF or WebP with several frames": (animated(), {}, "PNG, the first frame"),
    "text, video, a file of 0 bytes": (b"some text", {}, "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_convert_does_with_an_image_what_the_table_says(row):
    data, options, outcome = ROWS[row]
    checked = image.check(data, EncodingOptions(pixels=PixelOptions(**options)))
    if outcome in ("rejected", "not an image"):
        assert isinstance(checked, image.Rejected)
        return
    assert (checked.data == data) == (outcome == "kept")
    assert checked.encoding == ("jpeg" if outcome.startswith("JPEG") else checked.encoding)
    assert outcome == "kept" or checked.encoding == outcome.partition(",")[0].lower()
    pixels = image.decode(checked.data)
    if "range scaled" in outcome:
        assert pixels.max() == 255
    if "high byte" in outcome:
        assert pixels.max() == 15
    if "upright" in outcome:
        assert pixels.shape == (32, 24, 3)


def test_the_table_is_in_the_documents():
    text = TABLE.read_text("utf-8")
    for row, (_, _, outcome) in ROWS.items():
        assert f"| {row} | {outcome} |" in text
