import gc
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from deepduel.decode import BatchBuffers, BatchDecoder, Decoding, fit_image
from deepduel.shards import Split
from tfrecords_tools.cli import DataError


def test_pixels_equal_pillows(toy_shards):
    split = Split(toy_shards, "train")
    records = np.arange(len(split))
    batch = BatchDecoder(split, Decoding((32, 32)))(records)
    for record in records:
        assert (batch[record] == np.asarray(Image.open(io.BytesIO(split.image(record))))).all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_threads_do_not_show(toy_shards, threads):
    split = Split(toy_shards, "train")
    records = np.random.default_rng(0).permutation(len(split))
    expected = BatchDecoder(split, Decoding((32, 32)), threads=1)(records)
    assert (BatchDecoder(split, Decoding((32, 32)), threads=threads)(records) == expected).all()


def test_padding_is_black(toy_shards):
    split = Split(toy_shards, "train")
    decode = BatchDecoder(split, Decoding((32, 32)))
    del_me = decode(np.arange(8))  # leaves pixels in the buffer that is used again
    del del_me
    batch = decode(np.arange(5), rows=8)
    assert batch[:5].any(axis=(1, 2, 3)).all()
    assert not batch[5:].any()


def test_a_batch_that_is_held_is_never_written_to(toy_shards):
    split = Split(toy_shards, "train")
    decode = BatchDecoder(split, Decoding((32, 32)))
    held = [decode(np.arange(start, start + 16)) for start in range(0, 96, 16)]
    copies = [batch.copy() for batch in held]
    views = [batch[3:5] for batch in held]
    del held
    gc.collect()
    for start in range(0, 96, 16):
        decode(np.arange(start + 40, start + 56))
    assert all((view == copy[3:5]).all() for view, copy in zip(views, copies, strict=True))


def test_memory_is_used_again_and_aligned():
    buffers = BatchBuffers()
    first = buffers.take((4, 8, 8, 3))
    address = first.ctypes.data
    assert address % 64 == 0
    second = buffers.take((4, 8, 8, 3))
    assert second.ctypes.data != address
    del first
    assert buffers.take((2, 2, 8, 8, 3)).ctypes.data == address


def test_fit_leaves_the_right_size_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert fit_image(pixels, Decoding((20, 30))) is pixels


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (1, 1), (3, 500), (25, 25)])
def test_crop_fills_the_frame_and_pad_shows_all(shape):
    pixels = np.full((*shape, 3), 200, np.uint8)
    crop = fit_image(pixels, Decoding((20, 24), "crop"))
    assert crop.shape == (20, 24, 3)
    assert (crop == 200).all()
    pad = fit_image(pixels, Decoding((20, 24), "pad"))
    rows, columns = (pad == 200).all(axis=2).any(axis=1).sum(), (pad == 200).all(axis=2).any(axis=0).sum()
    scale = min(20 / shape[0], 24 / shape[1])
    assert (rows, columns) == tuple(max(1, round(side * scale)) for side in shape)


def test_crop_is_centred():
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert (fit_image(pixels, Decoding((10, 10))) == 255).all()


def test_damage_names_shard_record_and_key(toy_shards, tmp_path):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    split = Split(folder, "train")
    start, size = split._spans[7, 2:]
    path = folder / split.shards[0].file
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    damaged = Split(folder, "train")
    with pytest.raises(DataError, match=r"-00000-of-00003, record 7 \(key .*does not decode"):
        BatchDecoder(damaged, Decoding((32, 32)))(np.arange(16))


def test_bad_options():
    with pytest.raises(ValueError, match="fit must be"):
        Decoding((8, 8), "stretch")
    with pytest.raises(ValueError, match="size must be"):
        Decoding((0, 8))
