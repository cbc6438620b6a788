"""A training that is over leaves nothing behind in its process."""

import collections
import gc

import pytest
import tensorflow as tf

from deepduel import train
from tests.conftest import run_command
from tests.helpers import tiny_network

GRAPHS = (tf.Graph, tf.Operation, tf.Variable, tf.data.Dataset, tf.types.experimental.AtomicFunction)


def living():
    """How many of TensorFlow's objects there are, by type."""
    gc.collect()
    return collections.Counter(
        type(item).__name__ for item in gc.get_objects() if issubclass(type(item), GRAPHS)
    )


@pytest.mark.slow
@pytest.mark.own_process
def test_a_training_that_is_over_leaves_no_graph_and_no_variable(toy_shards, tmp_path, monkeypatch):
    """Of images, and of a head on stored features."""
    tiny_network.install(monkeypatch)
    quick = "--augmentation=none", "--micro_batch=60", "--epochs=1"
    frozen = (
        "--cache=features",
        "--views=1",
        "--fine_tune=none",
        f"--weights={tmp_path}/0/category/best.keras",
    )
    counts = []
    for number in range(2):
        for name, words in (str(number), ()), (f"features{number}", frozen):
            workdir = f"--workdir={tmp_path / name}"
            words = *tiny_network.RUN, *quick, *words
            assert run_command(train, f"--data_dir={toy_shards}", workdir, *words) == 0
        counts.append(living())
    assert counts[1] <= counts[0], counts[1] - counts[0]
