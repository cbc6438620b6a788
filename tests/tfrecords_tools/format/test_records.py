import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfrecords_tools.format import records

LABELS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda axis: axis not in ("image", "key")),
    st.integers(-1, 2**40), max_size=4,
)  # fmt: skip


@given(image=st.binary(min_size=1, max_size=300), key=st.binary(min_size=1, max_size=40), labels=LABELS)
def test_a_record_gives_back_what_it_was_built_from(image, key, labels):
    record, start = records.build(image, key, labels)
    assert record[start : start + len(image)] == image
    assert list(records.read_payloads(record * 2)) == [records.serialize(image, key, labels)] * 2
    assert records.parse(next(iter(records.read_payloads(record)))) == (image, key, labels)


@given(image=st.binary(max_size=70_000), key=st.binary(max_size=300), labels=LABELS)
@example(image=b"JPEG", key=b"a.jpg", labels={"image_source": 1, "keyword": 2})
def test_the_bytes_are_those_of_protobufs_deterministic_mode(image, key, labels):
    whole = records.example_class()()
    feature = whole.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["key"].bytes_list.value.append(key)
    for axis, label in labels.items():
        feature[axis].int64_list.value.append(label)
    ours = records.serialize(image, key, labels)
    assert whole.FromString(ours) == whole
    names = {"image", "key", *labels}
    if not any(a != b and a.startswith(b) for a in names for b in names):  # ours: the shorter comes first
        assert ours == whole.SerializeToString(deterministic=True)


@given(data=st.data(), image=st.binary(min_size=1, max_size=60))
def test_a_flipped_bit_changes_a_checksum(data, image):
    payload = records.serialize(image, b"key", {"a": 1})
    hurt = bytearray(payload)
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    hurt[bit // 8] ^= 1 << bit % 8
    assert records.masked_crc(hurt) != records.masked_crc(payload)


def test_the_bytes_of_a_record_are_these():
    record, start = records.build(b"JPEG", b"a/1.jpg", {"category": 2})
    assert record.hex() == (
        "3c00000000000000c8b7a352"
        "0a3a0a110a0863617465676f727912051a030a01020a110a05696d61676512080a060a044a504547"
        "0a120a036b6579120b0a090a07612f312e6a706708302cb5"
    )
    assert start == 48


def test_tensorflow_reads_the_record_and_writes_the_same(tmp_path):
    import tensorflow as tf

    record, _ = records.build(b"\xff\xd8 image", b"a/\xff.jpg", {"authenticity": 1, "category": -1})
    (tmp_path / "one").write_bytes(record * 3)
    payloads = [value.numpy() for value in tf.data.TFRecordDataset(str(tmp_path / "one"))]
    assert len(payloads) == 3
    example = tf.train.Example.FromString(payloads[0])
    assert example.features.feature["key"].bytes_list.value == [b"a/\xff.jpg"]
    assert example.features.feature["category"].int64_list.value == [-1]
    with tf.io.TFRecordWriter(str(tmp_path / "two")) as writer:
        writer.write(payloads[0])
    assert (tmp_path / "two").read_bytes() == record


@pytest.mark.parametrize("payload", [b"\xff\xff", b"", struct.pack("<Q", 5)])
def test_what_is_no_example_is_a_value_error(payload):
    with pytest.raises(ValueError, match="Example"):
        records.parse(payload)


def test_tables_are_checked_when_read():
    import io

    stream = io.BytesIO()
    np.save(stream, np.zeros(3, records.table_dtype(2)))
    assert len(records.load_table(stream.getvalue(), 2)) == 3
    with pytest.raises(ValueError, match="a table of"):
        records.load_table(stream.getvalue(), 1)


def test_key_text_shows_every_byte():
    assert records.key_text("ä/猫.jpg".encode()) == "ä/猫.jpg"
    assert records.key_text(b"a/\xff.jpg") == "a/\\xff.jpg"
