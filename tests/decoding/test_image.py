import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deepduel.decoding import image as decoding_image
from deepduel.decoding.image import DecodeOptions, resize_image
from deepduel.decoding.image_graph import decode_image, emptied
from deepduel.prediction import file_decoding
from tests.helpers import bombs, odd_images

pytestmark = pytest.mark.numeric


def photo(height: int, width: int) -> np.ndarray:
    """Soft shapes, edges and fine noise, as a camera gives."""
    rng = np.random.default_rng(height + width)
    soft = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((width, height))
    edges = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((width, height), 0)
    return np.asarray(Image.blend(soft, edges, 0.3)) // 4 * 3 + rng.integers(
        0, 24, (height, width, 1), np.uint8
    )


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def row(data: bytes, decoding: DecodeOptions, seed=None) -> np.ndarray:
    width, height = Image.open(io.BytesIO(data)).size
    out = np.empty((*decoding.size, 3), np.uint8)
    decoding_image.decode_jpeg(data, height, width, decoding, out, seed)
    return out


def graph_row(data: bytes, decoding: DecodeOptions, seed=None) -> np.ndarray:
    seed = seed and tuple(tf.constant(word, tf.int64) for word in seed)
    return tf.function(lambda: decode_image(data, decoding, {"jpeg"}, None, seed))().numpy()


def test_fit_leaves_the_right_size_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert resize_image(pixels, DecodeOptions((20, 30))) is pixels


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (1, 1), (3, 500), (25, 25)])
def test_crop_fills_the_frame_and_pad_shows_all(shape):
    pixels = np.full((*shape, 3), 200, np.uint8)
    crop = resize_image(pixels, DecodeOptions((20, 24), "crop"))
    assert crop.shape == (20, 24, 3)
    assert (crop == 200).all()
    pad = resize_image(pixels, DecodeOptions((20, 24), "pad"))
    rows, columns = (pad == 200).all(axis=2).any(axis=1).sum(), (pad == 200).all(axis=2).any(axis=0).sum()
    scale = min(20 / shape[0], 24 / shape[1])
    assert (rows, columns) == tuple(max(1, round(side * scale)) for side in shape)


def test_crop_is_centred():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert (resize_image(pixels, DecodeOptions((10, 10))) == 255).all()


@pytest.mark.parametrize(
    ("height", "width", "fit", "fast", "scale"),
    [
        (336, 500, "crop", False, 1), (672, 672, "crop", False, 2), (671, 900, "crop", False, 1),
        (448, 448, "crop", True, 2), (447, 900, "crop", True, 1), (1344, 3000, "crop", False, 4),
        (2688, 2688, "crop", False, 8), (9000, 9000, "crop", True, 8), (100, 5000, "crop", False, 1),
        (100, 672, "pad", False, 2), (671, 300, "pad", False, 1), (224, 224, "pad", True, 1),
        (9000, 9000, "native", True, 1),
    ],
)  # fmt: skip
def test_images_are_decoded_smaller_only_where_enough_is_left(height, width, fit, fast, scale):
    assert decoding_image.scale(height, width, DecodeOptions((224, 224), fit, fast)) == scale


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(195, 300), (203, 161), (401, 397), (800, 900)])
def test_decoding_smaller_differs_little_from_decoding_whole(height, width, fit):
    """Sides that are no multiples of the scale too. In grey levels: mean and worst pixel."""
    data = jpeg(photo(height, width))
    whole = np.asarray(Image.open(io.BytesIO(data)))
    for fast, mean, worst in ((False, 1.5, 16), (True, 2.5, 60)):
        decoding = DecodeOptions((50, 50), fit, fast)
        assert decoding_image.scale(height, width, decoding) > 1
        difference = np.abs(row(data, decoding).astype(int) - resize_image(whole, decoding))
        assert difference.mean() < mean and difference.max() <= worst, (difference.mean(), difference.max())


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(60, 80), (203, 161), (30, 20)])
def test_the_graph_gives_the_same_to_within_rounding(height, width, fit):
    data, decoding = jpeg(photo(height, width)), DecodeOptions((50, 40), fit)
    difference = np.abs(row(data, decoding).astype(int) - graph_row(data, decoding))
    assert difference.mean() < 0.6 and difference.max() <= 2


@pytest.mark.parametrize(("height", "width"), [(50, 40), (61, 90), (20, 90), (3, 5), (1, 1), (50, 41)])
@pytest.mark.parametrize("seed", [None, (0, 0), (7, 2**31 - 1)])
def test_native_pixels_are_the_images_own_in_both_readers(height, width, seed):
    data, decoding = jpeg(photo(height, width)), DecodeOptions((50, 40), "native")
    whole = np.asarray(Image.open(io.BytesIO(data)))
    out = row(data, decoding, seed)
    assert (out == graph_row(data, decoding, seed)).all()
    if seed is None:
        assert (out == resize_image(whole, decoding)).all()
    if height >= 50 and width >= 40:
        places = np.lib.stride_tricks.sliding_window_view(whole, (50, 40, 3))
        position = np.argwhere((places == out).all(axis=(-3, -2, -1)))[0][:2].tolist()
        assert seed or position == [(height - 50) // 2, (width - 40) // 2]
    else:  # what is missing is mirrored: numpy.pad says the same
        top, left = max(0, 50 - height), max(0, 40 - width)
        pad = ((top - top // 2 if top % 2 else top // 2, top // 2), (left - left // 2, left // 2), (0, 0))
        padded = np.pad(whole, pad, "reflect")
        assert height > 50 or width > 40 or (out == padded).all()


def test_native_crops_are_spread_evenly_and_differ_between_images_and_epochs():
    decoding = DecodeOptions((4, 4), "native")
    corners = [
        decoding_image.corner((13, 13), decoding.size, (word, record))
        for word in (1, 2)
        for record in range(4000)
    ]
    for axis in zip(*corners, strict=True):
        counts = np.bincount(axis, minlength=10)
        assert len(counts) == 10
        assert ((counts - 800) ** 2 / 800).sum() < 27.9  # chi-squared, 9 degrees of freedom, one in 1,000
    tops, lefts = zip(*corners, strict=True)
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.05
    assert 0.005 < np.mean([a == b for a, b in zip(corners[:4000], corners[4000:], strict=True)]) < 0.015


def test_files_and_records_go_the_same_way():
    """`file_decoding.decode`, which predicts from files, against the shards' way."""
    data = jpeg(photo(203, 161))
    for decoding in (
        DecodeOptions((50, 50)),
        DecodeOptions((50, 50), "pad", True),
        DecodeOptions((50, 50), "native"),
    ):
        out = np.empty((50, 50, 3), np.uint8)
        assert file_decoding.decode(data, decoding, out) is None
        assert (out == row(data, decoding)).all()


def test_a_jpeg_of_other_sides_than_expected_is_an_error():
    out = np.empty((50, 50, 3), np.uint8)
    for height, width in ((50, 50), (60, 60), (400, 400)):
        with pytest.raises(ValueError, match="the index says|uffer"):
            decoding_image.decode_jpeg(jpeg(photo(70, 90)), height, width, DecodeOptions((50, 50)), out)


def test_bad_options():
    with pytest.raises(ValueError, match="fit must be"):
        DecodeOptions((8, 8), "stretch")
    with pytest.raises(ValueError, match="size must be"):
        DecodeOptions((0, 8))


def test_bombs_are_refused_wherever_images_are_decoded():
    """In batches, from files, and in graphs."""
    decoding, out = DecodeOptions((50, 50)), np.empty((50, 50, 3), np.uint8)
    scans = bombs.scans(1_000, 883)
    with pytest.raises(ValueError, match="JPEG of 883 scans"):
        decoding_image.decode_jpeg(scans, 1_000, 1_000, decoding, out)
    with pytest.raises(ValueError, match="over the limit of 100,000,000 pixels"):
        decoding_image.decode_jpeg(scans, 1_000_000, 1_000_000, decoding, out)
    for data, reason in bombs.refused().values():
        assert file_decoding.decode(data, decoding, out).reason.startswith(reason)
    in_graph = [bombs.png(20_000, 20_000, 0, 1), odd_images.bomb(), jpeg_of_sides(60_000), b"GIF89a", b""]
    in_graph += [odd_images.save(odd_images.picture(), "GIF"), scans, bombs.scans(6_000, 90)]
    for data in in_graph:
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_image(tf.constant(data), decoding, ("jpeg", "png"), None)
        for one_size in (None, (8, 8), (60_000, 60_000)):
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode_image(tf.constant(data), decoding, ("jpeg",), one_size)


def test_of_images_of_one_size_those_with_too_many_scans_are_emptied():
    images = [b"", jpeg(photo(8, 8)), bombs.scans(6_000, 90)]
    assert emptied(tf.constant(images), (6_000, 6_000)).numpy().tolist() == [*images[:2], b""]
    assert emptied(tf.constant(images), None).numpy().tolist() == images


@pytest.mark.parametrize("fit", ["crop", "pad", "native"])
@pytest.mark.parametrize("size", [(60, 50), (20, 24), (200, 150), (220, 160)])
def test_a_graph_for_one_size_gives_the_pixels_of_a_graph_for_any(size, fit):
    data, decoding = tf.constant(jpeg(photo(200, 150))), DecodeOptions(size, fit)
    any_size = decode_image(data, decoding, ("jpeg", "png"), None)
    np.testing.assert_array_equal(decode_image(data, decoding, ("jpeg",), (200, 150)), any_size)
    with pytest.raises(tf.errors.InvalidArgumentError, match="another size than recorded"):
        decode_image(data, decoding, ("jpeg",), (150, 200))


def jpeg_of_sides(side: int) -> bytes:
    """A JPEG whose header says side x side."""
    data = bytearray(jpeg(photo(8, 8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(data)
