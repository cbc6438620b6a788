"""What only the sequential reader does; what both do is in test_pipeline and test_bad_records."""

import ctypes
import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline, sequential_reader, shard_stream
from deepduel.reading.options import ReadOptions
from tests.conftest import run_command
from tests.helpers.batches import numpy_batches, same, spoil
from tests.helpers.object_store import upload
from tfrecords_tools import convert
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest

_IN_OPEN = 0x20  # inotify(7)


COUNTS = (30, 1, 7, 22, 0, 16, 3, 40, 12, 9, 28)


@pytest.fixture(scope="module")
def many_shards(toy_folder, tmp_path_factory) -> pathlib.Path:
    """168 training images in 11 shards of unlike sizes, one of them empty; do not write to it."""
    folder = tmp_path_factory.mktemp("many") / "shards"
    words = f"--input_dir={toy_folder}", f"--output_dir={folder}", "--num_shards=1", "--workers=1"
    assert run_command(convert, *words) == 0
    whole = manifest.load(folder)
    (shard,) = whole.splits["train"].shards
    data, table = (folder / shard.file).read_bytes(), np.load(folder / f"{shard.file}.npy")
    ends = np.cumsum(COUNTS)
    shards = []
    for number, (first, last) in enumerate(zip(ends - COUNTS, ends, strict=True)):
        rows = table[first:last].copy()
        start = int(rows["offset"][0]) if len(rows) else 0
        stop = int(rows["offset"][-1] + rows["size"][-1]) if len(rows) else 0
        for column in ("offset", "image_offset"):
            rows[column] -= start
        name = f"cut-train.tfrecord-{number:05d}-of-00011"
        (folder / name).write_bytes(data[start:stop])
        np.save(folder / f"{name}.npy", rows)
        shards.append(
            manifest.Shard(name, int(last - first), stop - start, dict.fromkeys(manifest.ENDINGS, "0" * 64))
        )
    split = manifest.Split(tuple(shards), {})
    (folder / "manifest.json").write_bytes(
        manifest.dumps(dataclasses.replace(whole, splits={"train": split}))
    )
    return folder


@pytest.fixture
def small_steps(monkeypatch):
    """Blocks, groups and windows so small that 168 images have many of each."""
    monkeypatch.setattr(shard_stream, "_BLOCK", 3)
    monkeypatch.setattr(sequential_reader, "_SIDE_BY_SIDE", 4)
    monkeypatch.setattr(sequential_reader, "_WINDOW_RECORDS", (40, 1))


@pytest.fixture
def copy(toy_shards, tmp_path):
    return shutil.copytree(toy_shards, tmp_path / "shards")


def expected_stream(counts: list[int], shards: list[int], side_by_side: int, block: int) -> list[int]:
    """The stream's record numbers in plain Python: turns among the shards of each group."""
    firsts = np.cumsum([0, *counts])
    stream: list[int] = []
    for at in range(0, len(shards), side_by_side):
        left = [list(range(firsts[shard], firsts[shard + 1])) for shard in shards[at : at + side_by_side]]
        while any(left):
            for records in left:
                stream += records[:block]
                del records[:block]
    return stream


SHARDS = [3, 0, 10, 7, 1, 2, 9, 8, 4, 6, 5]  # in an order to read them in


def stream_reader(split: Split):
    """A function: start -> (record numbers, images, labels) of the rest of the stream."""
    stream = shard_stream.ShardStream(split)

    @tf.function
    def read(start):
        records = stream.records(tf.constant(SHARDS, tf.int64), start, side_by_side=4)
        kinds = ([], tf.int64), ([], tf.string), ([len(split.manifest.axes)], tf.int32)
        nothing = tf.data.Dataset.from_tensors(tuple(tf.zeros([0, *shape], kind) for shape, kind in kinds))
        return records.batch(1000).concatenate(nothing).take(1).get_single_element()

    return lambda start: [part.numpy() for part in read(tf.constant(start, tf.int64))]


def test_the_stream_is_the_same_from_any_record_on(many_shards, small_steps):
    split = Split(many_shards, "train")
    expected = expected_stream(COUNTS, SHARDS, 4, 3)
    read = stream_reader(split)
    for start in (*range(0, 168, 7), 167, 168):
        numbers, images, labels = read(start)
        assert numbers.tolist() == expected[start:]
        assert list(images) == [split.image(number) for number in numbers]
        np.testing.assert_array_equal(labels, np.stack(list(split.labels.values()), 1)[numbers])


@pytest.mark.slow
def test_resumed_in_any_group_and_window_it_goes_on_the_same(many_shards, small_steps):
    split = Split(many_shards, "train")
    reading = ReadOptions(20, reader="sequential")  # 9 batches, 5 windows, 3 groups
    whole = numpy_batches(pipeline.train_batches(split, reading, order.Position(5, 2)), 12)
    for step in (4, 11):
        resumed = pipeline.train_batches(split, reading, order.Position(5, 2, step))
        assert same(whole[step:], numpy_batches(resumed, 12 - step))


@pytest.mark.parametrize("start", [0, 40, 75, 100, 140, 167])
def test_shards_before_the_position_are_not_opened(many_shards, small_steps, start):
    split = Split(many_shards, "train")
    stream = expected_stream(COUNTS, SHARDS, 4, 3)
    read = stream_reader(split)
    with Opened(many_shards) as opened:
        read(start)
    # Reading begins with the round of turns that the position is in: up to 3 records of 4 shards before it.
    needed, allowed = (
        {split.place(number)[0] for number in stream[max(at, 0) :]} for at in (start, start - 12)
    )
    assert needed <= {n for n, shard in enumerate(split.shards) if shard.file in opened.names} <= allowed
    assert len(allowed) == {0: 10, 40: 10, 75: 10, 100: 9, 140: 5, 167: 1}[start]


class Opened:
    """Counts the files of a folder that are opened, by inotify(7)."""

    def __init__(self, folder: pathlib.Path):
        self._libc = ctypes.CDLL(None)
        self._file = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._file, os.fsencode(folder), _IN_OPEN) >= 0
        self.names: dict[str, int] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        data = b""
        while True:
            try:
                data += os.read(self._file, 1 << 16)
            except BlockingIOError:
                break
        os.close(self._file)
        while data:
            length = int.from_bytes(data[12:16], "little")
            name = data[16 : 16 + length].rstrip(b"\0").decode()
            self.names[name] = self.names.get(name, 0) + 1
            data = data[16 + length :]


@pytest.mark.slow
@pytest.mark.parametrize("on_error", [pytest.param("fail", marks=pytest.mark.scale), "skip"])
def test_tf_data_service_workers_give_the_same_batches(copy, on_error, capfd):
    if on_error == "skip":
        spoil(copy, 7, 60)
    split = Split(copy, "train")
    reading = ReadOptions(50, reader="sequential", on_error=on_error)
    batches = pipeline.train_batches(split, reading, order.Position(2, 1, 1))
    graph = tf.raw_ops.DatasetToGraphV2(input_dataset=tf.data.experimental.to_variant(batches)).numpy()
    assert b"TFRecordDatasetV2" in graph
    assert b"PyFunc" not in graph  # one would run here, in the same process, but not in another
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer(service.DispatcherConfig(port=0))
    address = dispatcher.target.split("://")[1]
    worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
    sent = batches.take(5).apply(service.distribute(service.ShardingPolicy.OFF, dispatcher.target))
    decoded = numpy_batches(sent)
    assert same(numpy_batches(batches, 5), decoded)
    if on_error == "skip":
        left_out = {int(n) for b in decoded for n in b["records"][b["weight"] == 0]}
        assert left_out == {7, 60}
        assert "record 7 (key train/" in capfd.readouterr().err
    del sent, worker


@pytest.mark.slow
def test_two_tf_data_service_workers_with_parts_give_every_record_once(toy_shards):
    """Each worker has a dispatcher of its own; two workers of one dispatcher give every record twice."""
    service = tf.data.experimental.service
    split = Split(toy_shards, "train")
    servers, parts = [], []
    for index in range(2):
        reading = ReadOptions(50, reader="sequential", worker=order.Worker(index, 2))
        part = pipeline.train_batches(split, reading, order.Position(2))
        dispatcher = service.DispatchServer(service.DispatcherConfig(port=0))
        address = dispatcher.target.split("://")[1]
        servers += [dispatcher, service.WorkerServer(service.WorkerConfig(dispatcher_address=address))]
        parts.append(part.apply(service.distribute(service.ShardingPolicy.OFF, dispatcher.target)))
    joined = tf.data.Dataset.zip(*parts).map(
        lambda one, other: tf.concat([one["records"], other["records"]], 0)
    )
    epoch = np.concatenate([batch.numpy() for batch in joined.take(order.steps_per_epoch(len(split), 50))])
    assert sorted(epoch.tolist()) == list(range(len(split)))
    del parts, joined, servers


def flip(split: Split, *numbers: int) -> None:
    """Flips a bit in images, so that their checksums do not fit."""
    for number in numbers:
        path = pathlib.Path(split.path(split.place(number)[0]))
        data = bytearray(path.read_bytes())
        data[int(split.image_places(np.array([number]))[1][0]) + 40] ^= 1
        path.write_bytes(data)


def test_a_damaged_checksum_is_named(copy):
    split = Split(copy, "train")
    flip(split, 9)
    with pytest.raises(tf.errors.OpError) as caught:
        numpy_batches(
            pipeline.train_batches(split, ReadOptions(50, reader="sequential"), order.Position()), 4
        )
    assert str(bad_records.data_error(caught.value)).startswith(
        f"{split.path(0)}, record 9 (key {split.key(9).decode()}): its checksum does not fit; run python"
    )


def test_a_damaged_checksum_costs_its_own_record_only(copy):
    split = Split(copy, "train")
    flip(split, 0, 9, 10, 60)
    batches = pipeline.eval_batches(split, ReadOptions(84, reader="sequential", on_error="skip"))
    first, second = numpy_batches(batches)
    assert np.concatenate([first["records"], second["records"]]).tolist() == list(range(168))
    assert np.flatnonzero(np.concatenate([first["weight"], second["weight"]]) == 0).tolist() == [0, 9, 10, 60]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_shard_that_was_cut_short_or_removed_ends_the_reading(copy, on_error):
    split = Split(copy, "train")
    _, number, start, size = split.place(20)
    os.truncate(split.path(0), start + size - 1)
    batches = pipeline.train_batches(
        split, ReadOptions(50, reader="sequential", on_error=on_error), order.Position()
    )
    with pytest.raises(tf.errors.OpError) as caught:
        numpy_batches(batches, 4)
    assert f"{split.path(0)}, record {number} (key unreadable): it was truncated" in str(
        bad_records.data_error(caught.value)
    )
    pathlib.Path(split.path(0)).unlink()
    with pytest.raises(tf.errors.OpError) as caught:
        numpy_batches(batches, 4)
    assert f"{split.path(0)}: cannot be opened (No such file" in str(bad_records.data_error(caught.value))


def test_a_scheme_that_tensorflow_lacks_is_refused_before_anything_is_read(toy_shards):
    with pytest.raises(UsageError, match="not for stored; use reader=random"):
        pipeline.make_train(upload(toy_shards), batch_size=8, reader="sequential")
