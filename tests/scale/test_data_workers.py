"""Trainings whose data workers are killed, stopped and started again reach the weights of one machine."""

import signal
import threading

import keras
import pytest

from deepduel import toy_images, train
from deepduel.reading import data_fleet, data_protocol
from deepduel.reading.data_workers import Training
from deepduel.reading.joined_batches import JoinedBatches
from tests.conftest import run_command
from tests.helpers import data_workers, tiny_network
from tfrecords_tools import convert

pytestmark = [pytest.mark.slow, pytest.mark.scale]

EPOCHS = 8  # of three steps


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Images so large that connections hold few batches."""
    folder = tmp_path_factory.mktemp("large")
    toy_images.write_folder(folder / "images", count=240, size=160, seed=0)
    assert run_command(convert, f"--input_dir={folder}/images", f"--output_dir={folder}/shards") == 0
    return folder / "shards"


@pytest.fixture(scope="module", params=["random", "sequential"])
def reader(request):
    return request.param


@pytest.fixture(scope="module")
def expected(shards, reader, tmp_path_factory):
    """The weights after a training without data workers."""
    return weights(shards, tmp_path_factory.mktemp("alone") / "run", f"--reader={reader}")


def weights(shards, workdir, *words):
    words = f"--data_dir={shards}", f"--workdir={workdir}", *tiny_network.RUN, f"--epochs={EPOCHS}", *words
    assert run_command(train, *words) == 0
    return keras.models.load_model(workdir / "category" / f"epoch-{EPOCHS:02d}.keras").get_weights()


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("end", ["none", "kill", "stop", "restart"])
def test_the_weights_are_those_of_one_machine(
    shards, reader, expected, tmp_path, monkeypatch, capfd, count, end
):
    """All data workers end this way, one after the other, in the middle of epochs."""
    data_fleet.Fleet.of.cache_clear()
    monkeypatch.setattr(data_fleet, "RETRY_SECONDS", 1.0)
    if count > 1:
        monkeypatch.setattr(data_protocol, "SILENCE_SECONDS", 8.0)  # of 30, which one data worker shows
    ended, started = [], []
    batch = JoinedBatches._batch

    def ending(batches, number):
        if isinstance(batches._plan, Training) and number % 3 == 1 and number // 3 > len(ended) < count:
            ended.append(workers[len(ended)])
            if end == "stop":
                ended[-1].process.send_signal(signal.SIGSTOP)
            elif end != "none":
                ended[-1].end()
            if end == "restart":
                started.append(data_workers.Process(ended[-1].port))
                threading.Thread(target=started[-1].wait, daemon=True).start()
        return batch(batches, number)

    with data_workers.processes(count) as workers:
        monkeypatch.setattr(JoinedBatches, "_batch", ending)
        names = ",".join(worker.address for worker in workers)
        words = f"--reader={reader}", f"--data_workers={names}"
        try:
            reached = weights(shards, tmp_path / "run", *words)
        finally:
            for process in started:
                process.end()
    assert len(ended) == count
    assert all((one == other).all() for one, other in zip(reached, expected, strict=True))
    said = capfd.readouterr().err
    for worker in workers:
        assert (f"data worker {worker.address}" in said.partition("\n")[2]) == (end != "none")
