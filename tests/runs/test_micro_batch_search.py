import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.networks import backbones
from deepduel.networks.architecture import Architecture
from deepduel.runs import micro_batch_search
from deepduel.training import devices, memory, passes
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

    monkeypatch.setattr(passes, "backward", failing)
    monkeypatch.setattr(tf.errors, "ResourceExhaustedError", tf.errors.InvalidArgumentError)
    assert list(micro_batch_search.measure(trainer, batch_size=512)) == [8, 16]
    peaks = iter([0, 100, 300])
    monkeypatch.setattr(devices, "peak_memory", lambda: next(peaks))
    monkeypatch.setattr(devices, "available_memory", lambda: (700, "free RAM"))
    assert list(micro_batch_search.measure(trainer, batch_size=512)) == [8, 16]  # 32 might take 600


def test_the_smallest_of_those_that_are_about_as_fast_is_taken():
    assert micro_batch_search.fastest({8: 50.0, 16: 98.0, 32: 100.0, 64: 99.0}) == 16
    assert micro_batch_search.fastest({8: 50.0}) == 8


def choose(trainer, workdir, micro_batch=None, compiled=None) -> tuple[int, bool]:
    options = {"micro_batch": micro_batch, "compiled": compiled, "batch_size": 64}
    micro_batch_search.choose(trainer, **options, workdir=workdir)
    return trainer.micro_batch, trainer.passes.compiled


def test_the_answer_is_remembered(trainer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(micro_batch_search, "measure", lambda trainer, batch_size: {8: 1.0, 16: 2.0})
    assert choose(trainer, tmp_path) == (16, False)
    assert "micro-batch 16 (images/s by size: 8: 1.0, 16: 2.0)" in capsys.readouterr().out
    monkeypatch.setattr(micro_batch_search, "measure", lambda trainer, batch_size: {8: 9.0})
    assert choose(trainer, tmp_path) == (16, False)
    (key,) = json.loads((tmp_path / "micro_batch.json").read_text())
    assert key.startswith("any device; small_cnn@8 all float32")  # batch-norm statistics depend on it


@pytest.mark.parametrize(("by_xla", "compiled"), [({16: 3.0}, True), ({16: 2.05}, False), ({}, False)])
def test_xla_is_tried_on_a_gpu_with_the_chosen_size(trainer, tmp_path, monkeypatch, by_xla, compiled):
    def measure(trainer, batch_size, first=8):
        return by_xla if trainer.passes.compiled else {16: 2.0, 8: 1.0} if first < batch_size else {16: 2.0}

    monkeypatch.setattr(devices, "gpu_names", lambda: ["Tesla T4"])
    monkeypatch.setattr(micro_batch_search, "measure", measure)
    assert choose(trainer, tmp_path) == (16, compiled)
    assert choose(trainer, tmp_path, micro_batch=16) == (16, compiled)
    monkeypatch.setattr(micro_batch_search, "measure", None)
    for _ in range(2):  # it is remembered
        assert choose(trainer, tmp_path) == (16, compiled)
        assert choose(trainer, tmp_path, micro_batch=16) == (16, compiled)
    assert choose(trainer, tmp_path, micro_batch=8, compiled=True) == (8, True)
    assert choose(trainer, tmp_path, micro_batch=8, compiled=False) == (8, False)


def test_what_xla_does_not_compile_runs_without_it(trainer, monkeypatch, capsys):
    def measure(trainer, batch_size, first=8):
        if trainer.passes.compiled:
            raise tf.errors.UnimplementedError(None, None, "Could not find compiler for XLA_GPU_JIT")
        return {16: 2.0}

    monkeypatch.setattr(devices, "gpu_names", lambda: ["Tesla T4"])
    monkeypatch.setattr(micro_batch_search, "measure", measure)
    assert choose(trainer, None) == (16, False)
    assert "XLA does not compile these networks: Could not find compiler" in capsys.readouterr().out


def test_the_choice_on_a_gpu_holds_on_a_cpu_where_a_backbone_draws_random_numbers(
    toy_shards, tmp_path, monkeypatch
):
    split = Split(toy_shards, "train")

    def measure(trainer, **_):
        return {16: 2.0 if trainer.passes.compiled else 1.0}

    monkeypatch.setattr(micro_batch_search, "measure", measure)
    inputs = keras.Input((8, 8, 3))
    for layer, expected in (keras.layers.Dropout(0.5), True), (keras.layers.ReLU(), False):
        backbone = keras.Model(inputs, layer(inputs))
        monkeypatch.setitem(backbones.OWN, "small_cnn", lambda *_, result=backbone, **__: result)
        trained = Architecture("small_cnn", "avg", 8, fine_tune="all")
        trainer, workdir = compiled(make_task("category", split, trained)), tmp_path / str(expected)
        workdir.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(devices, "gpu_names", lambda: ["Tesla T4"])
            assert choose(trainer, workdir, micro_batch=16) == (16, True)
        assert choose(trainer, workdir, micro_batch=16) == (16, expected)


def test_the_estimate_has_what_the_networks_have(trainer):
    trainer.micro_batch = 1
    parts = memory.estimate(trainer, batch_size=100, size=(32, 32))
    assert parts["uint8 images in flight"] == 4 * 8 * 100 * 32 * 32 * 3  # four groups of eight batches
    cached = memory.estimate(trainer, batch_size=100, size=(32, 32), cached=True)
    assert cached["uint8 images in flight"] == 4 * 24 * 100 * 32 * 32 * 3
    parameters = sum(task.model.saved_model.count_params() for task in trainer.tasks)
    parameters += sum(int(np.prod(weight.shape)) for weight in trainer.tasks[1].model.frozen.variables)
    assert parameters * 4 <= parts["weights"] < parameters * 4 + 1000
    trainer.micro_batch = 10
    assert parts["activations of a micro-batch"] * 10 == pytest.approx(
        memory.estimate(trainer, batch_size=100, size=(32, 32))["activations of a micro-batch"]
    )
    assert all(np.isfinite(count) for count in parts.values())
