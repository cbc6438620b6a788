import struct
import time

import numpy as np
import pytest

from tests.helpers import bombs, odd_images, peak_memory
from tfrecords_tools.images import image, jpeg, limits, tiff
from tfrecords_tools.images.encoding_options import MAX_PIXELS, EncodingOptions
from tfrecords_tools.images.stored import stored_pixels

SIDE = 1_500
STATED_BYTES = 2_200_000_000  # in SECURITY.md: the most that an image of MAX_PIXELS pixels takes


@pytest.fixture(scope="module")
def refused() -> dict[str, tuple[bytes, str]]:
    return bombs.refused()


def test_bombs_are_refused_before_they_are_decoded(refused):
    start = time.process_time()
    for name, (data, reason) in refused.items():
        for result in (image.check(data), image.pixels(data), image.check(data, EncodingOptions("jpeg", 64))):
            assert isinstance(result, image.Rejected), name
            assert result.reason.startswith(reason), name
    assert time.process_time() - start < 1


@pytest.mark.slow
@pytest.mark.skipif(not peak_memory.CLEAR.exists(), reason="peak memory is read from Linux' /proc")
def test_every_format_stays_within_the_memory_that_is_stated():
    """Measured at 2 million pixels, since what each format takes is proportional to them."""
    peaks = peak_memory.of_formats(SIDE)
    dearer = {"photo.webp": 18 / 22, "photo.jp2": 18 / 20}  # how many of the pixels these may have
    for name, peak in peaks.items():
        assert peak / SIDE**2 * MAX_PIXELS * dearer.get(name, 1) < STATED_BYTES, name
    assert min(peaks[name] for name in ("alpha.png", "photo.webp", "turned.jpg")) > 9 * SIDE**2


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_readers_decode_nothing_but_what_the_table_says(refused, encoding):
    others = {name: data for name, (data, _) in refused.items()}
    others |= {"other.gif": odd_images.save(odd_images.picture(), "GIF"), "text": b"no image", "empty": b""}
    others["larger.png"] = bombs.png(2_000, 2_000)
    others["larger.jpg"] = odd_images.save(odd_images.picture(2_000, 2_000), "JPEG")
    for name, data in others.items():
        with pytest.raises(ValueError, match="PNG|the index says|scans|JPEG|header") as raised:
            stored_pixels(data, encoding, 24, 32)
        assert "\n" not in str(raised.value), name


def test_readers_refuse_sizes_over_the_limit():
    with pytest.raises(ValueError, match="more than the 100,000,000 that are decoded"):
        stored_pixels(bombs.png(20_000, 20_000, 0, 1), "png", 20_000, 20_000)


def test_memory_that_runs_out_is_a_reason(monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr(image, "decode", fail)
    with pytest.raises(ValueError, match="decoding it needs more memory than is available"):
        stored_pixels(odd_images.save(odd_images.picture(24, 32), "PNG"), "png", 24, 32)


def test_an_image_that_no_reader_would_decode_is_not_stored(monkeypatch):
    monkeypatch.setattr(image, "MAX_PIXELS", 1_000)
    result = image.check(bombs.png(40, 40), EncodingOptions(max_pixels=2_000))
    assert isinstance(result, image.Rejected)
    assert "store images smaller with --image_size" in result.reason


def test_scans_are_counted_where_a_jpeg_may_have_many():
    few = odd_images.save(odd_images.picture(), "JPEG", progressive=True)
    assert jpeg.excessive_scans(few, jpeg.scan(few)) == 0
    baseline = odd_images.save(odd_images.picture(), "JPEG", comment=b"\xff\xda" * 500)
    assert jpeg.excessive_scans(baseline, jpeg.scan(baseline)) == 0
    assert jpeg.excessive_scans(b"\xff\xda" * 500, None) == 500
    assert limits.excessive_scans(bombs.scans(64, 100), jpeg.scan(bombs.scans(64, 100))) == ""


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_directory_of_a_tiff_file_is_read(order, big):
    """Two samples of 16 bits in tiles of 64 x 32 pixels, in each of the four forms of the file."""
    tags = {256: 40, 257: 30, 258: 16, 277: 2, 322: 64, 323: 32, 324: 8}
    head = (43, 8, 0, 16, len(tags)) if big else (42, 8, len(tags))
    data = (b"II" if order == "<" else b"MM") + struct.pack(order + ("HHHQQ" if big else "HIH"), *head)
    for tag, value in tags.items():
        count = 7 if tag == 324 else 1
        field = struct.pack(order + ("H" if tag % 2 else "I"), value).ljust(8 if big else 4, b"\0")
        data += struct.pack(order + ("HHQ" if big else "HHI"), tag, 3 if tag % 2 else 4, count) + field
    data += struct.pack(order + ("Q" if big else "I"), 9)
    assert tiff.scan(data) == tiff.Header(40 * 30 * 4, 7, 64 * 32 * 4, True)
    for length in range(len(data)):
        assert tiff.scan(data[:length]) is None


def test_several_images_in_a_file_are_seen_without_visiting_them():
    frames = [odd_images.picture(seed=seed) for seed in (1, 2)]
    data = odd_images.save(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert image.check(data).note == "TIFF, animated, first frame"
    np.testing.assert_array_equal(image.pixels(data), np.asarray(frames[0]))
