import json

import keras
import pytest
import tensorflow as tf

from deepduel import train
from deepduel.runs import memory_fallback, micro_batch_search
from deepduel.training.compiled_step import CompiledStep
from tests.conftest import run_command
from tests.helpers import tiny_network

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    tiny_network.install(monkeypatch)


@pytest.fixture
def words(toy_shards):
    return f"--data_dir={toy_shards}", *tiny_network.RUN, "--batch_norm=frozen", "--epochs=1"


def exhausting(patch, *, above: int) -> None:
    """Lets the second step, once it is computed, fail for want of memory with micro-batches above a size."""
    call, steps = CompiledStep.__call__, []

    def failing(compiled, iterator):
        logs = call(compiled, iterator)
        steps.append(compiled)
        trainer = compiled._step.__self__
        if len(steps) % 2 == 0 and trainer.micro_batch > above:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return logs

    patch.setattr(CompiledStep, "__call__", failing)


def test_what_is_advised_for_want_of_memory_was_not_tried_yet():
    assert memory_fallback.out_of_memory(8, suggests_auto=False).args == (
        "out of memory with micro-batch 8; try --micro_batch=4",
    )
    assert "or --micro_batch=auto" in str(memory_fallback.out_of_memory(8, suggests_auto=True))


def weights(workdir):
    return keras.models.load_model(workdir / "category" / "epoch-01.keras").get_weights()


def test_auto_halves_the_micro_batch_until_it_fits_and_the_result_is_the_same(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(micro_batch_search, "measure", lambda trainer, batch_size: {32: 1.0})
    with monkeypatch.context() as patch:
        exhausting(patch, above=8)
        assert run_command(train, *words, f"--workdir={tmp_path}/exhausted", "--micro_batch=auto") == 0
    output = capsys.readouterr().out
    for before, after in ((32, 16), (16, 8)):
        line = f"out of memory with micro-batch {before}: continuing with {after}, from epoch 1, step 0"
        assert line in output, output
    (search,) = json.loads((tmp_path / "exhausted" / "micro_batch.json").read_text()).values()
    assert (search["micro_batch"], search["images_per_second"]) == (8, {"32": 1.0})
    assert run_command(train, *words, f"--workdir={tmp_path}/plain", "--micro_batch=8") == 0
    pairs = zip(weights(tmp_path / "exhausted"), weights(tmp_path / "plain"), strict=True)
    assert all((a == b).all() for a, b in pairs)


def test_a_size_that_was_asked_for_is_named_with_the_one_to_try(words, tmp_path, monkeypatch, capsys):
    exhausting(monkeypatch, above=0)
    for size, remedy in ((16, "try --micro_batch=8, or --micro_batch=auto"), (1, "lower --batch_size")):
        command = *words, f"--workdir={tmp_path}/{size}", f"--micro_batch={size}"
        assert run_command(train, *command) == 1
        error = capsys.readouterr().err
        assert f"deepduel.train: out of memory with micro-batch {size}; {remedy}" in error
        assert "Traceback" not in error
