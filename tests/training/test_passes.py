"""Networks compiled by XLA. On a CPU that is slow, and computes what it computes on a GPU."""

import pytest

from deepduel.decoding.split import Split
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from deepduel.training.passes import Passes
from tests.helpers import tiny_network
from tests.helpers.tasks import TRAINED, assert_same, compiled, make

STATISTICS = pytest.param(TRAINED, id="statistics", marks=[pytest.mark.slow, pytest.mark.scale])
TUNED = pytest.param(Architecture("small_cnn", "avg,dropout:0.5", 16, fine_tune="last:2"), id="tuned")


@pytest.mark.parametrize("architecture", [TUNED, STATISTICS])
def test_compiled_training_has_the_weights_and_metrics_of_uncompiled_training(
    toy_shards, monkeypatch, architecture
):
    """Batch-norm statistics trained and not, dropout in the head, padded micro-batches."""
    tiny_network.install(monkeypatch)
    split = Split(toy_shards, "train")
    reading = pipeline.ReadOptions(30)
    results = []
    for passes in Passes(), Passes(compiled=True):
        trainer = compiled(make("category", split, architecture), micro_batch=16)
        trainer.passes = passes
        batches = pipeline.train_batches(split, reading, order.Position(3))
        trainer.fit(batches, steps_per_epoch=3, epochs=1, shuffle=False, verbose=0)
        logs = trainer.evaluate(pipeline.eval_batches(split, reading), verbose=0, return_dict=True)
        results.append([*logs.values(), *(variable.numpy() for variable in trainer.state_variables())])
    assert_same(*results, atol=1e-5)
