"""Batches whose parts data workers read are those of one machine, whatever becomes of the data workers."""

import contextlib
import gc
import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.split import Split
from deepduel.reading import data_connection, data_fleet, data_protocol, data_server, order, pipeline
from deepduel.reading.options import ReadOptions
from tests.helpers import data_workers
from tests.helpers.batches import numpy_batches, same, spoil
from tfrecords_tools.errors import DataError, UsageError

POSITION = order.Position(3, 1, 2)  # the next to last batch of an epoch of four
SIZE = 160, 160  # so large that a connection holds few batches


@pytest.fixture(scope="module")
def four():
    with data_workers.threads(4) as workers:
        yield [worker.address for worker in workers]


@pytest.fixture(autouse=True)
def forgotten():
    """No fleet of another test."""
    data_fleet.Fleet.of.cache_clear()


def both(split, *, count=9, position=POSITION, addresses=(), **options):
    """The batches of this machine, and those by data workers."""
    batches = (
        pipeline.train_batches(split, ReadOptions(50, **options, data_workers=names), position)
        for names in ((), tuple(addresses))
    )
    return [numpy_batches(each, count) for each in batches]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("worker", [order.Worker(), order.Worker(1, 3)], ids=["alone", "one of three"])
def test_the_parts_joined_are_the_batches_of_one_machine(toy_shards, four, count, worker):
    split = Split(toy_shards, "train")
    expected, received = both(split, addresses=four[:count], worker=worker)
    assert same(expected, received)
    if worker.count == 1:  # three epochs follow the position but for their first batches
        records = np.concatenate([batch["records"] for batch in received[2:6]])
        assert sorted(records.tolist()) == list(range(len(split)))


def test_parts_may_be_empty_and_of_any_sampling_and_size(toy_shards, four):
    split = Split(toy_shards, "train")
    options = {"sampling": "balanced", "size": (20, 12), "fit": "native", "fast_decode": True}
    assert same(*both(split, addresses=four, count=4, **options))
    one = [
        numpy_batches(pipeline.train_batches(split, ReadOptions(1, data_workers=names), POSITION), 5)
        for names in ((), tuple(four[:2]))
    ]
    assert same(*one)


@pytest.mark.parametrize("rows", [16, 500])
def test_an_evaluation_counts_every_record_once(toy_shards, four, rows):
    split = Split(toy_shards, "validation")
    expected = numpy_batches(pipeline.eval_batches(split, ReadOptions(rows)))
    batches = pipeline.eval_batches(split, ReadOptions(rows, data_workers=tuple(four[:3])))
    for _ in range(2):  # the data set can be read again
        assert same(expected, numpy_batches(batches))
    assert batches.cardinality() == len(expected)


@pytest.mark.slow
def test_a_process_serves_the_sequential_reader_too(toy_shards):
    """Two names of one process: each reads its part by the graph of the sequential reader."""
    with data_workers.processes(1) as (worker,):
        addresses = worker.address, f"localhost:{worker.port}"
        options = {"reader": "sequential", "position": order.Position(3, 1, 3), "count": 5}
        assert same(*both(Split(toy_shards, "train"), addresses=addresses, **options))


def test_make_train_and_make_eval_take_data_workers(toy_shards, four):
    options = {"batch_size": 20, "labels": "category", "data_workers": four[:2]}
    images, labels = next(iter(pipeline.make_train(toy_shards, **options)))
    assert (images.shape, labels.shape) == ((20, 32, 32, 3), (20,))
    evaluation = pipeline.make_eval(toy_shards, **options)
    assert sum(float(tf.reduce_sum(weight)) for *_, weight in evaluation) == 54
    assert evaluation.class_names == ["animals", "human_faces", "vehicles"]


class TestLoss:
    """What happens while batches are read."""

    def read(self, split, addresses, events, *, count=12):
        """Batches by data workers; events: {number of a batch: what happens before it}."""
        reading = ReadOptions(50, SIZE, data_workers=tuple(addresses))
        batches = iter(pipeline.train_batches(split, reading, POSITION))
        received = []
        for number in range(count):
            events.get(number, lambda: None)()
            received.append({name: np.copy(next_) for name, next_ in flat(next(batches)).items()})
        return received

    def expected(self, split, *, count=12):
        batches = pipeline.train_batches(split, ReadOptions(50, SIZE), POSITION)
        return [{name: part.copy() for name, part in flat(batch).items()} for batch in batches.take(count)]

    def test_a_data_worker_that_ends_is_left_out(self, toy_shards, capfd):
        split = Split(toy_shards, "train")
        with data_workers.threads(2) as (first, second):
            received = self.read(split, [first.address, second.address], {4: first.stop})
        assert same(self.expected(split), received)
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[0] == (
            f"from epoch 2, step 2 on, images are decoded by data workers {first.address} "
            f"({first.server.greeting.cores} cores), {second.address} ({first.server.greeting.cores} cores)"
        )
        assert lines[1].startswith(f"data worker {first.address} was lost (")
        assert lines[1].endswith(
            f"on, images are decoded by data worker {second.address} ({first.server.greeting.cores} cores)"
        )

    def test_without_any_this_machine_reads_and_those_that_return_are_taken_back(
        self, toy_shards, capfd, monkeypatch
    ):
        monkeypatch.setattr(data_fleet, "RETRY_SECONDS", 0.0)
        split = Split(toy_shards, "train")
        first = data_workers.Thread()
        again = []

        def restart():
            again.append(data_workers.Thread(int(first.address.rpartition(":")[2])))

        fleet = data_fleet.Fleet.of((first.address,))
        events = {3: first.stop, 12: restart} | dict.fromkeys(range(14, 20), lambda: time.sleep(0.1))
        try:
            received = self.read(split, [first.address], events, count=20)
            assert not fleet._missing
        finally:
            again[0].stop()
        assert same(self.expected(split, count=20), received)
        _, lost, back = capfd.readouterr().err.splitlines()
        assert lost.endswith("on, images are decoded on this machine alone")
        assert back.startswith(f"data worker {first.address} answers again; from epoch")

    @pytest.mark.parametrize("alive", [True, False])
    def test_silence_is_a_loss_and_slowness_is_none(self, toy_shards, capfd, monkeypatch, alive):
        """A batch takes longer than silence may last; a data worker that is alive says so meanwhile."""
        monkeypatch.setattr(data_protocol, "ALIVE_SECONDS", 0.05)
        monkeypatch.setattr(data_protocol, "SILENCE_SECONDS", 0.5)
        send, batches = data_protocol.send, data_server.batch_arrays
        slept = []

        def send_all_but_signs_of_life(connection, kind, payload=b""):
            if alive or kind != data_protocol.ALIVE:
                send(connection, kind, payload)

        def read(data_set):
            for number, arrays in enumerate(batches(data_set)):
                if number == 2 and not slept:
                    slept.append(number)
                    time.sleep(1.2)
                yield arrays

        monkeypatch.setattr(data_protocol, "send", send_all_but_signs_of_life)
        monkeypatch.setattr(data_server, "batch_arrays", read)
        split = Split(toy_shards, "train")
        with data_workers.threads(1) as (worker,):
            assert same(self.expected(split, count=4), self.read(split, [worker.address], {}, count=4))
        said = "was lost (no sign of life for" in capfd.readouterr().err
        assert said != alive

    def test_one_that_cannot_read_is_not_asked_again(self, toy_shards, capfd, monkeypatch):
        """Its disk fails while it reads; it still answers."""
        monkeypatch.setattr(data_fleet, "RETRY_SECONDS", 0.0)
        split = Split(toy_shards, "train")
        batches = data_server.batch_arrays

        def read(data_set):
            for number, arrays in enumerate(batches(data_set)):
                if number == 2:
                    raise OSError(5, "Input/output error")
                yield arrays

        with data_workers.threads(1) as (worker,):
            monkeypatch.setattr(data_server, "batch_arrays", read)
            assert same(
                self.expected(split), self.read(split, [worker.address], {5: lambda: time.sleep(0.3)})
            )
        _, lost = capfd.readouterr().err.splitlines()
        assert "was lost ([Errno 5] Input/output error); from epoch 3" in lost

    def test_one_that_greets_and_then_ends_every_time_is_not_asked_for_ever(
        self, toy_shards, capfd, monkeypatch
    ):
        def broken(connection, make):
            raise RuntimeError("broken")

        monkeypatch.setattr(data_server._Connection, "_send", broken)
        split = Split(toy_shards, "train")
        with data_workers.threads(1) as (worker,):
            assert same(self.expected(split, count=4), self.read(split, [worker.address], {}, count=4))
        lines = [line for line in capfd.readouterr().err.splitlines() if "broken" not in line]
        assert len(lines) == 3, lines
        assert lines[-1].endswith(
            "it closed the connection); from epoch 2, step 2 on, images are decoded on this machine alone"
        )


def flat(batch):
    """The parts of a batch by name, labels among them."""
    parts = {name: part for name, part in batch.items() if name != "labels"} | batch["labels"]
    return {name: part.numpy() for name, part in parts.items()}


class TestErrors:
    def test_an_image_that_does_not_decode_is_named(self, toy_shards, tmp_path, four, capfd):
        shards = shutil.copytree(toy_shards, tmp_path / "shards")
        spoil(shards, 7, 60)
        reading = ReadOptions(50, data_workers=tuple(four[:2]))
        with pytest.raises(tf.errors.OpError) as raised:
            numpy_batches(pipeline.train_batches(Split(shards, "train"), reading, order.Position()), 4)
        assert "(key train/" in str(bad_records.data_error(raised.value))
        capfd.readouterr()

        split = Split(shards, "train")
        expected, received = both(split, addresses=four[:2], on_error="skip")
        assert same(expected, received)
        assert set(split.bad) == {7, 60}

    def test_other_data_are_refused(self, toy_shards, tmp_path, four):
        shards = shutil.copytree(toy_shards, tmp_path / "shards")
        split = Split(shards, "train")
        document = json.loads((shards / "manifest.json").read_text())
        shutil.rmtree(shards)
        with pytest.raises(DataError, match=r"cannot read the shards: .*must lead to the same shards"):
            pipeline.train_batches(split, ReadOptions(50, data_workers=tuple(four[:2])), POSITION)
        shutil.copytree(toy_shards, shards)
        document["name"] = "other"
        document.pop("checksum", None)
        (shards / "manifest.json").write_text(json.dumps(document))
        with pytest.raises(DataError, match=f"data worker {four[0]} cannot read the shards"):
            pipeline.train_batches(split, ReadOptions(50, data_workers=(four[0],)), POSITION)

    def test_other_versions_are_refused(self, toy_shards, four, monkeypatch):
        monkeypatch.setattr(data_connection, "versions", lambda: {"TensorFlow": "2.0.0"})
        with pytest.raises(DataError, match=r"has TensorFlow 2\.\d+\.\d+ and this machine 2\.0\.0"):
            pipeline.make_train(toy_shards, batch_size=50, data_workers=four[:1])

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                "the program that answers is not a data worker of this version",
            ),
            (b"", "no sign of life for 0 s"),
            (b"ddw1J\2\0\0\0{}", "the program that answers is not a data worker of this version"),
            (b"ddw1J\2\0\0\0[]", "a message without fields"),
            (b"ddw1J\2\0\0\0{{", "a message that is not JSON"),
        ],
    )
    def test_another_server_is_none(self, toy_shards, capfd, monkeypatch, answer, said):
        monkeypatch.setattr(data_protocol, "CONNECT_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as server:
            connections = []

            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        connections.append(server.accept()[0])
                        connections[-1].sendall(answer)

            threading.Thread(target=serve, daemon=True).start()
            address = f"127.0.0.1:{server.getsockname()[1]}"
            split = Split(toy_shards, "train")
            assert same(*both(split, addresses=[address], count=3))
        assert f"data worker {address}: it does not greet as a data worker does ({said}" in (
            capfd.readouterr().err
        )

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"data_workers": ["cpu1"]}, "must be HOST:PORT, separated by commas, got 'cpu1'"),
            ({"data_workers": ["cpu1:70000"]}, "must be HOST:PORT"),
            ({"data_workers": ["cpu1:1", " cpu1:1"]}, "names an address twice"),
            ({"cache": "ram"}, "cache=ram keeps what this machine decodes"),
            ({"remote_cache": "none"}, "give --remote_cache to deepduel.data_service instead"),
            ({"reader": "sequential", "split": "train[50%:]"}, "reads whole splits"),
        ],
    )
    def test_what_does_not_go_together_is_a_usage_error(self, toy_shards, options, said):
        with pytest.raises(UsageError, match=said.replace("[", r"\[")):
            pipeline.make_train(toy_shards, **({"batch_size": 8, "data_workers": ["cpu1:1"]} | options))

    def test_a_malformed_question_ends_its_connection_only(self, toy_shards, four, capfd):
        host, port = data_protocol.Address.parse(four[0])
        with socket.create_connection((host, port), 5) as connection:
            data_protocol.receive_json(connection)
            data_protocol.send_json(connection, {"code": "import os"})
            with pytest.raises(data_protocol.Lost):
                data_protocol.receive_json(connection)
        assert "TypeError" in capfd.readouterr().err
        assert same(*both(Split(toy_shards, "train"), addresses=four[:1], count=2))


def test_ipv6_addresses_have_brackets():
    address = data_protocol.Address.parse("[::1]:5050")
    assert (address, str(address)) == (("::1", 5050), "[::1]:5050")


def test_data_sets_that_are_dropped_leave_no_thread_and_no_connection(toy_shards):
    with data_workers.threads(2) as workers:
        addresses = tuple(worker.address for worker in workers)
        counts = []
        for _ in range(5):
            iterator = iter(pipeline.make_train(toy_shards, batch_size=32, data_workers=addresses))
            next(iterator)
            counts.append(threading.active_count())
            del iterator
            gc.collect()
        end = time.monotonic() + 10
        while threading.active_count() > counts[0] - 3 and time.monotonic() < end:
            time.sleep(0.05)
        # One that receives, and on each data worker one that reads and one that sends.
        assert threading.active_count() <= counts[0] - 3
