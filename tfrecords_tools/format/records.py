"""One record, byte by byte: what a shard holds and where each part of it lies.

A shard is a TFRecord file: records one after another, each

    length    8 bytes, little-endian   bytes of payload
    crc       4 bytes                  masked CRC-32C of the length
    payload   length bytes             a serialized tf.train.Example
    crc       4 bytes                  masked CRC-32C of the payload

and its Example holds

    image     bytes   the encoded image (JPEG, PNG), or H*W*3 raw uint8
    key       bytes   path relative to the input folder, `/`-separated, as the file system gave it
    AXIS      int64   one per label axis, -1 where the image has no label on it

Beside `SHARD` lie two files that make it addressable by record number:

    SHARD.idx   text, a line per record: `offset size` of the whole record in bytes
                (DALI's tfrecord2idx form, so that DALI reads the shard too)
    SHARD.npy   NumPy array [records] of `table_dtype(axes)`: where in the shard the encoded
                image lies, its height and width, its encoding, its labels
"""

import functools
import hashlib
import io
import mmap
import re
import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np

from tfrecords_tools import terminal

Buffer = bytes | memoryview | mmap.mmap  # the contents of a shard
ENCODINGS = ("jpeg", "png", "raw")  # `table["encoding"]` is an index into this
NO_LABEL = -1
LENGTH_BYTES = 12  # before the payload: length and its checksum
FOOTER_BYTES = 4  # after the payload: its checksum
_TABLE_HEAD = re.compile(  # of the .npy format, version 1.0 (numpy/lib/format.py)
    rb"\x93NUMPY\x01\x00..\{'descr': (?P<descr>[^{}]*), 'fortran_order': False, "
    rb"'shape': \((?P<count>\d+),\), \} *\n", re.DOTALL)  # fmt: skip
_CRC_MASK = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h, kMaskDelta


@functools.cache  # read thousands of times where there are thousands of shards
def table_dtype(axes: int) -> np.dtype:
    """The row of `SHARD.npy` for a data set of `axes` label axes; offsets and sizes in bytes.

    `offset`, `size`: the whole record in the shard. `image_offset`, `image_size`: the encoded
    image in the shard. `height`, `width`: upright pixels. `labels`: in the manifest's order of axes.
    """
    return np.dtype(
        [
            ("offset", "<i8"),
            ("size", "<i8"),
            ("image_offset", "<i8"),
            ("image_size", "<i8"),
            ("height", "<i4"),
            ("width", "<i4"),
            ("encoding", "<i4"),
            ("labels", "<i4", (axes,)),
        ]
    )


def load_table(data: bytes, axes: int) -> np.ndarray:
    """The contents of `SHARD.npy` -> [records] of `table_dtype(axes)`, read only. Raises ValueError."""
    dtype = table_dtype(axes)
    head = _TABLE_HEAD.match(data)
    # NumPy evaluates the header as Python, which takes longer than all else with thousands of shards.
    if head and head["descr"] == _table_descr(axes):
        return np.frombuffer(data, dtype, count=int(head["count"]), offset=head.end())
    try:
        table = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError:
        raise
    except Exception as error:  # the header is parsed as Python, which raises SyntaxError, MemoryError, …
        raise ValueError(f"not an array ({type(error).__name__})") from error
    if not isinstance(table, np.ndarray) or table.dtype != dtype or table.ndim != 1:
        raise ValueError(f"a table of {table.dtype} {table.shape}, not of {dtype}")
    return table


@functools.cache
def _table_descr(axes: int) -> bytes:
    return repr(table_dtype(axes).descr).encode()


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(bytes(data))
    return (((crc >> 15) | (crc << 17)) + _CRC_MASK) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """A payload as a whole TFRecord record."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        (length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload)))
    )


def serialize(image: bytes, key: bytes, labels: dict[str, int]) -> bytes:
    """One Example as bytes; the same arguments always give the same bytes."""
    return _example(image, key, labels)[0]


def build(image: bytes, key: bytes, labels: dict[str, int]) -> tuple[bytes, int]:
    """A whole record, and where in it the image's bytes start."""
    payload, start = _example(image, key, labels)
    return frame(payload), LENGTH_BYTES + start


def _example(image: bytes, key: bytes, labels: dict[str, int]) -> tuple[bytes, int]:
    """A serialized Example and where in it the image starts, as protobuf's deterministic mode writes it
    (of two names one of which begins with the other, the shorter comes first here).

    Features in the order of their names. By hand it takes 4 us; protobuf, and then looking for the
    image in what it gave, 40.
    """
    before, between, after = _label_entries(tuple(labels.items()))
    head = before + _bytes_entry(b"image", len(image))
    tail = b"".join((between, _bytes_entry(b"key", len(key)), key, after))
    features = b"\x0a" + _varint(len(head) + len(image) + len(tail))
    return b"".join((features, head, image, tail)), len(features) + len(head)


def _bytes_entry(name: bytes, size: int) -> bytes:
    """A feature of one bytes value, up to the value: it comes last."""
    value = b"\x0a" + _varint(size)
    feature = b"\x0a" + _varint(len(value) + size)
    named = b"\x0a" + _varint(len(name)) + name + b"\x12" + _varint(len(feature) + len(value) + size)
    return b"\x0a" + _varint(len(named) + len(feature) + len(value) + size) + named + feature + value


@functools.lru_cache(maxsize=1 << 12)
def _label_entries(labels: tuple[tuple[str, int], ...]) -> tuple[bytes, bytes, bytes]:
    """The features of labels: those before `image`, those between it and `key`, and those after."""
    parts: tuple[list[bytes], ...] = [], [], []
    for name, value in sorted(labels):
        parts[(name > "image") + (name > "key")].append(_int_entry(name, value))
    before, between, after = (b"".join(part) for part in parts)
    return before, between, after


@functools.lru_cache(maxsize=1 << 16)
def _int_entry(name: str, value: int) -> bytes:
    """A feature of one int64 value."""
    number = _varint(value & 0xFFFFFFFFFFFFFFFF)
    feature = b"\x1a" + _varint(len(number) + 2) + b"\x0a" + _varint(len(number)) + number
    coded = name.encode()
    entry = b"\x0a" + _varint(len(coded)) + coded + b"\x12" + _varint(len(feature)) + feature
    return b"\x0a" + _varint(len(entry)) + entry


@functools.lru_cache(maxsize=1 << 16)
def _varint(value: int) -> bytes:
    """protobuf's: 7 bits a byte, the lowest first, the top bit says that more follow."""
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def parse(payload: bytes) -> tuple[bytes, bytes, dict[str, int]]:
    """The inverse of `serialize`: (image, key, labels). Raises ValueError when it is not one."""
    try:
        feature = example_class().FromString(bytes(payload)).features.feature
    except Exception as error:  # protobuf's DecodeError has a different home in each version
        raise ValueError(f"not a serialized tf.train.Example: {error}") from error
    labels = {name: value.int64_list.value[0] for name, value in feature.items() if value.int64_list.value}
    images = list(feature["image"].bytes_list.value) if "image" in feature else []
    keys = list(feature["key"].bytes_list.value) if "key" in feature else []
    if len(images) != 1 or len(keys) != 1:
        raise ValueError("the Example has no single `image` and `key`")
    return images[0], keys[0], labels


def read_payloads(data: Buffer) -> Iterator[bytes]:
    """The payloads of a sound shard, one after another, checksums unread."""
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        yield bytes(data[offset + LENGTH_BYTES : offset + LENGTH_BYTES + length])
        offset += LENGTH_BYTES + length + FOOTER_BYTES


def read_keys(data: Buffer) -> Iterator[bytes]:
    """The keys of a sound shard's records."""
    return (parse(payload)[1] for payload in read_payloads(data))


def image_span(payload: bytes, image: bytes) -> int:
    """Where `image` starts in the serialized Example that holds it, in bytes."""
    head = image[:64]  # a search for all of it would first study all of it
    start = payload.index(head)
    while not payload.startswith(image, start):
        start = payload.index(head, start + 1)
    return start


def order_hash(key: bytes, seed: int) -> int:
    """An image's place in the order of writing: uniform in 64 bits, the same for all time."""
    digest = hashlib.blake2b(key, digest_size=8, key=seed.to_bytes(8, "little", signed=True))
    return int.from_bytes(digest.digest(), "little")


def key_text(key: bytes) -> str:
    """A key for people: UTF-8, other bytes as backslash escapes."""
    return key.decode("utf-8", "backslashreplace")


def key_shown(key: bytes) -> str:
    """A key in a message, on one line: see `terminal.escaped`."""
    return terminal.escaped(key_text(key))


@functools.cache
def example_class() -> Any:
    """tf.train.Example from its published schema, without importing TensorFlow.

    Source: tensorflow/core/example/{example,feature}.proto. A pool of its own, so that it never
    meets TensorFlow's registration of the same names.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # slow to import

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, int, str | None], parent: Any = None) -> Any:
        added = (parent.nested_type if parent else file.message_type).add(name=name)
        for field_name, number, kind, label, type_name in fields:
            added.field.add(name=field_name, number=number, type=kind, label=label, type_name=type_name)
        return added

    optional, repeated = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", ("value", 1, field.TYPE_BYTES, repeated, None))
    message("FloatList", ("value", 1, field.TYPE_FLOAT, repeated, None))
    message("Int64List", ("value", 1, field.TYPE_INT64, repeated, None))
    feature = message(
        "Feature",
        ("bytes_list", 1, field.TYPE_MESSAGE, optional, ".tensorflow.BytesList"),
        ("float_list", 2, field.TYPE_MESSAGE, optional, ".tensorflow.FloatList"),
        ("int64_list", 3, field.TYPE_MESSAGE, optional, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    features = message(
        "Features", ("feature", 1, field.TYPE_MESSAGE, repeated, ".tensorflow.Features.FeatureEntry")
    )
    entry = message(
        "FeatureEntry",
        ("key", 1, field.TYPE_STRING, optional, None),
        ("value", 2, field.TYPE_MESSAGE, optional, ".tensorflow.Feature"),
        parent=features,
    )
    entry.options.map_entry = True
    message("Example", ("features", 1, field.TYPE_MESSAGE, optional, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
