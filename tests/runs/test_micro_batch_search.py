import json

import numpy as np
import pytest
import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.networks.architecture import Architecture
from deepduel.runs import micro_batch_search
from deepduel.training import devices, memory, step
from tests.helpers.tasks import compiled
from tests.helpers.tasks import make as make_task


@pytest.fixture(scope="module")
def trainer(toy_shards):
    split = Split(toy_shards, "train")
    trained = Architecture("small_cnn", "avg,dropout:0.5,dense:4", 8, fine_tune="all")
    frozen = Architecture("small_cnn", "avg", 8)
    tasks = [make_task("category", split, trained), make_task("authenticity", split, frozen)]
    return compiled(*tasks, micro_batch=1)


def test_all_sizes_are_tried_and_nothing_stays_changed(trainer):
    before = [variable.numpy() for variable in trainer.state_variables()]
    rates = micro_batch_search.measure(trainer, batch_size=50)
    assert list(rates) == [8, 16, 32, 50]
    assert all(rate > 0 for rate in rates.values())
    assert all(
        (a == variable.numpy()).all() for a, variable in zip(before, trainer.state_variables(), strict=True)
    )


def test_it_stops_where_memory_ends(trainer, monkeypatch):
    def failing(tasks, images, *rest):
        tf.debugging.assert_less(tf.shape(images)[0], 32)
        return {}, {task.name: [tf.zeros(())] for task in tasks}

    monkeypatch.setattr(step, "backward", failing)
    monkeypatch.setattr(tf.errors, "ResourceExhaustedError", tf.errors.InvalidArgumentError)
    assert list(micro_batch_search.measure(trainer, batch_size=512)) == [8, 16]
    peaks = iter([0, 100, 300])
    monkeypatch.setattr(devices, "peak_memory", lambda: next(peaks))
    monkeypatch.setattr(devices, "available_memory", lambda: (700, "free RAM"))
    assert list(micro_batch_search.measure(trainer, batch_size=512)) == [8, 16]  # 32 might take 600


def test_the_smallest_of_those_that_are_about_as_fast_is_taken():
    assert micro_batch_search.fastest({8: 50.0, 16: 98.0, 32: 100.0, 64: 99.0}) == 16
    assert micro_batch_search.fastest({8: 50.0}) == 8


def test_the_answer_is_remembered(trainer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(micro_batch_search, "measure", lambda trainer, batch_size: {8: 1.0, 16: 2.0})
    assert micro_batch_search.chosen(trainer, tmp_path, batch_size=64) == 16
    assert "micro-batch 16 (images/s of the networks by size: 8: 1.0, 16: 2.0)" in capsys.readouterr().out
    monkeypatch.setattr(micro_batch_search, "measure", lambda trainer, batch_size: {8: 9.0})
    assert micro_batch_search.chosen(trainer, tmp_path, batch_size=64) == 16
    (key,) = json.loads((tmp_path / "micro_batch.json").read_text())
    assert key.startswith("any device; small_cnn@8 all float32")  # batch-norm statistics depend on it


def test_the_estimate_has_what_the_networks_have(trainer):
    parts = memory.estimate(trainer, batch_size=100, size=(32, 32))
    assert parts["uint8 images in flight"] == 4 * 8 * 100 * 32 * 32 * 3  # four groups of eight batches
    parameters = sum(task.model.saved_model.count_params() for task in trainer.tasks)
    parameters += sum(int(np.prod(weight.shape)) for weight in trainer.tasks[1].model.frozen.variables)
    assert parameters * 4 <= parts["weights"] < parameters * 4 + 1000
    trainer.micro_batch = 10
    assert parts["activations of a micro-batch"] * 10 == pytest.approx(
        memory.estimate(trainer, batch_size=100, size=(32, 32))["activations of a micro-batch"]
    )
    assert all(np.isfinite(count) for count in parts.values())
