import gc
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from deepduel.decoding import batch_decoder
from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
from tfrecords_tools.errors import DataError


def test_pixels_equal_pillows(toy_shards):
    split = Split(toy_shards, "train")
    records = np.arange(len(split))
    batch = BatchDecoder(split, DecodeOptions((32, 32)))(records)
    for record in records:
        assert (batch[record] == np.asarray(Image.open(io.BytesIO(split.image(record))))).all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_threads_do_not_show(toy_shards, threads):
    split = Split(toy_shards, "train")
    records = np.random.default_rng(0).permutation(len(split))
    expected = BatchDecoder(split, DecodeOptions((32, 32)), threads=1)(records)
    assert (BatchDecoder(split, DecodeOptions((32, 32)), threads=threads)(records) == expected).all()


def test_padding_is_black(toy_shards):
    split = Split(toy_shards, "train")
    decode = BatchDecoder(split, DecodeOptions((32, 32)))
    del_me = decode(np.arange(8))  # leaves pixels in the buffer that is used again
    del del_me
    batch = decode(np.arange(5), rows=8)
    assert batch[:5].any(axis=(1, 2, 3)).all()
    assert not batch[5:].any()


def test_a_batch_that_is_held_is_never_written_to(toy_shards):
    split = Split(toy_shards, "train")
    decode = BatchDecoder(split, DecodeOptions((32, 32)))
    batches = [decode(np.arange(start, start + 16)) for start in range(0, 96, 16)]
    copies = [batch.copy() for batch in batches]
    views = [batch[3:5] for batch in batches]
    del batches
    gc.collect()
    for start in range(0, 96, 16):
        decode(np.arange(start + 40, start + 56))
    assert all((view == copy[3:5]).all() for view, copy in zip(views, copies, strict=True))


def test_damage_names_shard_record_and_key(toy_shards, tmp_path):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    split = Split(folder, "train")
    _, start, size = (int(column[0]) for column in split.image_places(np.array([7])))
    path = folder / split.shards[0].file
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    damaged = Split(folder, "train")
    with pytest.raises(DataError, match=r"-00000-of-00003, record 7 \(key .*does not decode"):
        BatchDecoder(damaged, DecodeOptions((32, 32)))(np.arange(16))


def test_memory_that_runs_out_leaves_an_image_out(toy_shards, monkeypatch, capfd):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr(batch_decoder, "decode_image", fail)
    monkeypatch.setattr(batch_decoder.worker_pool, "shared", lambda _: None)  # one that another test left
    split = Split(toy_shards, "train")
    assert not BatchDecoder(split, DecodeOptions((32, 32)), on_error="skip")(np.arange(2)).any()
    assert split.bad == dict.fromkeys(range(2), "decoding it needs more memory than is available")
    with pytest.raises(DataError, match="more memory than is available"):
        BatchDecoder(Split(toy_shards, "train"), DecodeOptions((32, 32)))(np.arange(2))
