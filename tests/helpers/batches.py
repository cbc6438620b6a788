"""Batches as NumPy arrays, and shards with images that do not decode."""

import itertools
import pathlib
import struct

import numpy as np
import tensorflow as tf

from deepduel.decoding.split import Split
from tfrecords_tools.format import records as record_format


def numpy_batches(batches, count=None):
    """Copies: what NumPy shows of a tensor is the tensor's own memory."""
    taken = itertools.islice(batches, count)
    return [tf.nest.map_structure(lambda tensor: tensor.numpy().copy(), batch) for batch in taken]


def same(one, other) -> bool:
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    return all(a.shape == b.shape and (a == b).all() for a, b in pairs)


def spoil(folder: pathlib.Path, *numbers: int, split: str = "train") -> None:
    """Turns images into zeros, with checksums that fit: whole records that hold no image."""
    opened = Split(folder, split)
    for number in numbers:
        shard, _, start, size = opened.place(number)
        _, image, length = (int(column[0]) for column in opened.image_places(np.array([number])))
        path = folder / opened.shards[shard].file
        data = bytearray(path.read_bytes())
        data[image : image + length] = bytes(length)
        end = start + size - record_format.FOOTER_BYTES
        payload = bytes(data[start + record_format.LENGTH_BYTES : end])
        data[end : end + 4] = struct.pack("<I", record_format.masked_crc(payload))
        path.write_bytes(data)
