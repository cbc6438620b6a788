import io
import struct

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from tests.helpers import odd_images
from tfrecords_tools.errors import UsageError
from tfrecords_tools.images import encoding_options, image, jpeg
from tfrecords_tools.images.encoding_options import EncodingOptions
from tfrecords_tools.images.rgb import PixelOptions

pytestmark = pytest.mark.numeric


def reference(data: bytes) -> np.ndarray:
    """What Pillow makes of the bytes: upright, RGB; 16 bits by their high byte."""
    with Image.open(io.BytesIO(data)) as opened:
        if opened.mode.startswith("I"):
            return np.repeat((np.asarray(opened).astype(int) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


@pytest.mark.parametrize("name", odd_images.kept())
def test_keep_stores_the_very_bytes_and_they_decode_to_pillows_pixels(name):
    data = odd_images.kept()[name]
    checked = image.check(data)
    assert checked.data == data and checked.note == ""
    pixels = image.decode(checked.data)
    assert pixels.shape == (checked.height, checked.width, 3)
    np.testing.assert_array_equal(pixels, reference(data))


@pytest.mark.parametrize("name", odd_images.reencoded())
def test_what_cannot_be_kept_is_stored_without_loss_and_says_why(name):
    data, note = odd_images.reencoded()[name]
    checked = image.check(data)
    assert (checked.encoding, checked.note) == ("png", note)
    np.testing.assert_array_equal(image.decode(checked.data), reference(data))
    again = image.check(checked.data)
    assert again.data == checked.data and again.note == ""  # what was stored may enter again as it is


@pytest.mark.parametrize("name", odd_images.turned())
def test_a_jpeg_with_an_orientation_is_stored_as_an_upright_jpeg(name):
    data, note = odd_images.turned()[name]
    checked = image.check(data)
    assert (checked.encoding, checked.note) == ("jpeg", note)
    stored, upright = image.decode(checked.data).astype(int), reference(data)
    assert stored.shape == upright.shape == (checked.height, checked.width, 3)
    assert np.abs(stored - upright).max() <= (4 if note.endswith("blocks turned") else 12)
    again = image.check(checked.data)
    assert again.data == checked.data and again.note == ""
    assert image.check(data, EncodingOptions(turned="png")).encoding == "png"


@pytest.mark.parametrize("name", odd_images.rejected())
def test_what_may_not_enter_has_a_reason(name):
    data, reason = odd_images.rejected()[name]
    result = image.check(data)
    assert isinstance(result, image.Rejected)
    assert result.reason.startswith(reason)
    assert image.pixels(data) == result


@pytest.mark.parametrize("name", [*odd_images.kept(), *odd_images.reencoded(), *odd_images.turned()])
def test_pixels_are_those_of_what_is_stored(name):
    data = odd_images.kept().get(name) or (odd_images.reencoded() | odd_images.turned())[name][0]
    pixels = image.pixels(data)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, image.decode(image.check(data).data))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 1}])
def test_checking_finds_what_decoding_to_pixels_finds(options):
    """A kept JPEG is checked at an eighth of its size: damage shows in its bits, not in the transform."""
    colour = odd_images.picture(90, 70, seed=1)
    verdicts = []
    for picture in (colour, colour.convert("L")):
        whole = odd_images.save(picture, "JPEG", quality=85, **options)
        generator = np.random.default_rng(0)
        for _ in range(150):
            data = bytearray(whole)
            for at in generator.integers(len(data), size=generator.integers(1, 4)).tolist():
                data[at] ^= 1 << int(generator.integers(8))
            data = bytes(data)[: generator.integers(len(data) // 2, 2 * len(data))]
            header = jpeg.scan(data)
            if header is None or not header.plain or header.height * header.width > 1_000_000:
                continue
            try:
                sound = simplejpeg.decode_jpeg(data, "RGB").shape[:2] == (header.height, header.width)
            except ValueError as error:
                if str(error).startswith(image._HARMLESS):
                    continue  # Pillow decides
                sound = False
            verdicts.append((isinstance(image.check(data), image.Checked), sound))
    assert all(ours == theirs for ours, theirs in verdicts)
    assert 20 < sum(sound for _, sound in verdicts) < len(verdicts) - 20


def test_heic_is_read_when_pillow_heif_is_there_and_named_when_not(monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    heif.from_pillow(odd_images.picture(64, 64)).save(stream, quality=90)
    monkeypatch.setattr(image, "_register_heif", lambda: False)
    assert image.check(stream.getvalue()) == image.Rejected(
        "HEIF/HEIC image: reading it needs pip install pillow-heif"
    )
    monkeypatch.undo()
    checked = image.check(stream.getvalue())
    assert (checked.height, checked.width, checked.note) == (64, 64, "HEIF")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_no_damage_makes_check_raise(kind):
    data = odd_images.save(odd_images.picture(), kind)
    rng = np.random.default_rng(0)
    for _ in range(150):
        hurt = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            hurt[place] = rng.integers(0, 256)
        cut = bytes(hurt[: rng.integers(1, len(data) + 1)])
        result = image.check(cut)
        if isinstance(result, image.Checked):
            assert image.decode(result.data).shape == (result.height, result.width, 3)
            np.testing.assert_array_equal(image.pixels(cut), image.decode(result.data))
        else:
            assert result.reason and "\n" not in result.reason


@pytest.mark.parametrize("fit", encoding_options.FITS)
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_sizes_and_encodings(encoding, fit):
    data = odd_images.save(odd_images.picture(24, 48), "PNG")
    checked = image.check(data, EncodingOptions(encoding, 16, fit, quality=90))
    assert (checked.height, checked.width, checked.encoding) == (16, 16, encoding)
    if encoding == "raw":
        pixels = np.frombuffer(checked.data, np.uint8).reshape(16, 16, 3)
    else:
        pixels = image.decode(checked.data)
    source = Image.open(io.BytesIO(data))
    expected = {
        "resize": source.resize((16, 16), Image.Resampling.BICUBIC),
        "crop": ImageOps.fit(source, (16, 16), Image.Resampling.BICUBIC),
        "pad": ImageOps.pad(source, (16, 16), Image.Resampling.BICUBIC, color=(0, 0, 0)),
    }[fit]
    error = np.abs(pixels.astype(int) - np.asarray(expected)).mean()
    assert error < 6 if encoding == "jpeg" else error == 0
    if fit == "pad" and encoding != "jpeg":
        assert not pixels[:4].any() and not pixels[-4:].any() and pixels[4:-4].any()


def test_an_image_that_has_the_size_already_keeps_its_pixels():
    source = odd_images.picture(16, 16)
    checked = image.check(odd_images.save(source, "PNG"), EncodingOptions("raw", 16))
    assert checked.data == np.asarray(source).tobytes()


def test_too_many_pixels_are_rejected_before_they_are_decoded():
    data = odd_images.save(odd_images.picture(100, 101), "JPEG")
    result = image.check(data, EncodingOptions(max_pixels=10_000))
    assert result == image.Rejected("101x100 pixels: over the limit of 10,000 pixels")


def test_decode_into_a_buffer_and_not_into_one_of_another_shape():
    data = odd_images.save(odd_images.picture(), "JPEG")
    for encoded in (data, odd_images.save(odd_images.picture(), "PNG")):
        out = np.zeros((24, 32, 3), np.uint8)
        image.decode(encoded, out=out)
        np.testing.assert_array_equal(out, image.decode(encoded))
        with pytest.raises(ValueError, match=r"`out` must be contiguous uint8 \[24, 32, 3\]"):
            image.decode(encoded, out=np.zeros((32, 24, 3), np.uint8))
    assert np.abs(image.decode(data, fast=True).astype(int) - image.decode(data)).max() < 40


def test_decode_says_what_is_no_image():
    with pytest.raises(ValueError, match="not a JPEG or PNG image"):
        image.decode(b"GIF89a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "gif"}, "--encoding must be one of keep, jpeg, png, raw, not 'gif'"),
        ({"fit": "squeeze"}, "--fit must be one of resize, crop, pad, not 'squeeze'"),
        ({"image_size": -1, "encoding": "png"}, "--image_size must be 1 to 8192 pixels"),
        ({"image_size": 64}, "--encoding=keep stores the original bytes"),
        ({"encoding": "raw"}, "--encoding=raw needs --image_size"),
        ({"quality": 0}, "--quality must be 1 to 100, not 0"),
    ],
)
def test_encoding_options_check_themselves(options, message):
    with pytest.raises(UsageError, match=message):
        EncodingOptions(**options)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_headers_are_read_without_decoding(orientation):
    data = odd_images.save(odd_images.picture(), "JPEG", exif=odd_images.exif(orientation))
    assert jpeg.scan(data) == jpeg.Header(24, 32, 3, 8, "baseline", orientation, True)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10, 30, 160, 400])
def test_jpeg_headers_that_end_early_are_none(length):
    data = odd_images.save(odd_images.picture(), "JPEG")[:length]
    assert jpeg.scan(data) is None


def jpeg_with(*segments: bytes) -> bytes:
    """A wide JPEG with these APP1 segments."""
    data = odd_images.save(odd_images.picture(8, 24), "JPEG")
    coded = b"".join(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments)
    return data[:2] + coded + data[2:]


def tiff_block(*tags: tuple[int, int, int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
ODD = (0x011A, 2, 4, b"72\0\0")  # XResolution as text, which Pillow cannot write back
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="


@pytest.mark.parametrize(
    ("segments", "turned"),
    [
        ([b"Exif\0\0" + tiff_block(TURNED)], True),
        ([b"Exif\0\0" + tiff_block(TURNED, ODD)], True),
        ([b"Exif\0\0Exif\0\0" + tiff_block(TURNED)], True),
        ([b"Exif\0\0" + tiff_block(TURNED)] * 2, True),
        ([b"Exif\0\0" + tiff_block(ODD)], False),
        ([b"Exif\0\0II*\0\xff\xff\xff\xff"], False),
        ([XMP + b'"6"/></x:xmpmeta>'], True),
        ([XMP + b"'6'/></x:xmpmeta>"], True),
        ([XMP + b'"1"/></x:xmpmeta>', b"Exif\0\0" + tiff_block(TURNED)], True),
    ],
)
def test_a_photograph_is_turned_by_its_orientation_whatever_else_its_metadata_holds(segments, turned):
    data = jpeg_with(*segments)
    checked, result = image.check(data), image.pixels(data)
    assert (checked.height, checked.width) == result.shape[:2] == ((24, 8) if turned else (8, 24))
    assert checked.note == ("EXIF orientation 6, encoded anew in finer steps" if turned else "")
    assert (checked.data == data) != turned


def gray16(kind: str, *, high: int = 4095) -> bytes:
    """A grayscale ramp of 16-bit samples from 0 to `high`."""
    values = np.linspace(0, high, 256).round().astype(np.uint16).reshape(16, 16)
    if kind == "PGM":
        return b"P5\n# a comment\n16 16\n" + str(high).encode() + b"\n" + values.astype(">u2").tobytes()
    return odd_images.save(Image.fromarray(values), kind)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
def test_a_range_of_16_bit_samples_is_scaled_to_all_of_8_bits(kind):
    options = PixelOptions(depth="0:4095")
    pixels = image.pixels(gray16(kind), options=options)
    np.testing.assert_array_equal(pixels[..., 0].reshape(-1), np.arange(256))
    checked = image.check(gray16(kind), EncodingOptions(pixels=options))
    np.testing.assert_array_equal(image.decode(checked.data), pixels)


@pytest.mark.parametrize(("kind", "highest"), [("PNG", 15), ("TIFF", 15), ("PGM", 255)])
def test_the_high_byte_is_the_default_and_dark_images_are_noted(kind, highest):
    checked = image.check(gray16(kind))
    assert image.decode(checked.data).max() == highest
    assert checked.note.endswith(image.DARK) == (highest == 15)
    assert not image.check(gray16(kind, high=60_000)).note.endswith(image.DARK)


def test_32_bit_samples_need_a_range():
    data = odd_images.save(Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)), "TIFF")
    assert "--depth=LOW:HIGH gives one" in image.pixels(data).reason
    assert image.pixels(data, options=PixelOptions(depth="0:1")).max() == 255


def test_a_range_for_colour_of_16_bits_is_refused_and_not_ignored():
    data = odd_images.png16(np.zeros((4, 4, 3), np.uint16), colour=True)
    assert "--depth=LOW:HIGH is for grayscale" in image.pixels(data, options=PixelOptions(depth="0:9")).reason


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("alpha", "wanted"), [("white", 255), ("#0000ff", (0, 0, 255)), ("black", 0)])
def test_transparent_images_lie_on_the_chosen_colour(mode, alpha, wanted):
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    data = odd_images.save(clear.convert(mode), "PNG")
    pixels = image.pixels(data, options=PixelOptions(alpha=alpha))
    assert (pixels == wanted).all()
    checked = image.check(data, EncodingOptions(pixels=PixelOptions(alpha=alpha)))
    np.testing.assert_array_equal(image.decode(checked.data), pixels)


@pytest.mark.parametrize(
    "options", [{"alpha": "transparentish"}, {"depth": "12"}, {"depth": "9:1"}, {"damaged": "maybe"}]
)
def test_pixel_options_check_themselves(options):
    with pytest.raises(UsageError, match=f"--{next(iter(options))}="):
        PixelOptions(**options)


WHOLE = odd_images.save(odd_images.picture(40, 56), "JPEG")
SCAN = WHOLE.index(b"\xff\xda")


@pytest.mark.parametrize(
    ("data", "accepted"),
    [
        (WHOLE[:-2], True),  # no end marker
        (WHOLE[:-2] + b"\0\0\0\0" + WHOLE[-2:], True),  # stray bytes before it
        (WHOLE[: len(WHOLE) - 60], False),  # pixels are missing
        (WHOLE[: SCAN + 40] + b"\xff" + WHOLE[SCAN + 41 :], False),
    ],
)
def test_slight_damage_is_accepted_when_asked_and_no_other(data, accepted):
    options = EncodingOptions(pixels=PixelOptions(damaged="accept"))
    rejected = image.check(data)
    assert isinstance(rejected, image.Rejected)
    remedy = "; --damaged=accept takes it" if accepted else ""
    assert image.with_remedy(rejected, data, EncodingOptions()).reason == rejected.reason + remedy
    checked = image.check(data, options)
    assert isinstance(checked, image.Checked) == accepted
    if accepted:
        np.testing.assert_array_equal(image.decode(checked.data), image.decode(WHOLE))
        assert image.check(checked.data) == checked  # sound by itself
