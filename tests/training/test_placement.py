"""A step stays on the GPU: nothing in it needs the host, and images travel as uint8, once."""

import pytest
import tensorflow as tf

from deepduel.augmentation.mixing import Mixing
from deepduel.decoding.split import Split
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from tests.helpers import gpu_kernels, tiny_network
from tests.helpers.tasks import compiled, make

TRAINED = Architecture("small_cnn", "avg,dropout:0.5", 16, fine_tune="all", precision="mixed_float16")
TINY = {("Fill", "int32", "uint32")}  # of a dropout's seed: two numbers


def traced(step, spec) -> tf.Graph:
    return tf.function(step, input_signature=[spec], autograph=False).get_concrete_function().graph


@pytest.mark.slow
def test_no_operation_of_a_step_is_left_to_the_host(toy_shards, monkeypatch):
    """Training and validation, with mixing, loss scaling, batch-norm statistics, blur and JPEG."""
    tiny_network.install(monkeypatch)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [f"{kind}:0"])
    split, reading = Split(toy_shards, "train"), pipeline.ReadOptions(50)
    mixing = Mixing(0.2, 1.0)
    trainer = compiled(make("category", split, TRAINED, "forensic", mixing=mixing), micro_batch=16)
    spec = pipeline.train_batches(split, reading, order.Position(3)).element_spec
    assert gpu_kernels.on_the_host(traced(trainer.train_step, spec)) <= TINY
    assert gpu_kernels.on_the_host(traced(trainer.test_step, spec)) <= TINY


def test_what_needs_the_host_is_found():
    def step(images):
        return tf.numpy_function(lambda rows: rows, [tf.gather(images, [1, 2])], tf.uint8)

    graph = traced(step, tf.TensorSpec((4, 8, 8, 3), tf.uint8))
    assert gpu_kernels.on_the_host(graph) == {("GatherV2", "int32", "uint8"), ("PyFunc", "uint8")}
