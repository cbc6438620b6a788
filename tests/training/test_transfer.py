import pytest
import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.training import transfer
from tests.helpers.batches import numpy_batches, same


@pytest.mark.parametrize("device", [None, "/device:CPU:0"])
def test_batches_on_a_device_are_those_of_the_host(toy_shards, device):
    split, reading = Split(toy_shards, "train"), pipeline.ReadOptions(50)
    for batches, count in (
        (pipeline.train_batches(split, reading, order.Position(3, step=2)), 5),
        (pipeline.eval_batches(split, reading), None),
    ):
        moved = transfer.to_device(batches, device)
        assert moved.element_spec == batches.element_spec
        expected = numpy_batches(batches, count)
        for _ in range(2):  # as validation, which iterates once an epoch
            got = numpy_batches(moved, count)
            assert len(got) == len(expected) and all(map(same, got, expected))


def test_only_a_copy_is_ahead_of_the_step():
    pulled = []

    def generate():
        for number in range(10):
            pulled.append(number)
            yield number

    batches = tf.data.Dataset.from_generator(generate, output_signature=tf.TensorSpec((), tf.int64))
    iterator = iter(transfer.to_device(batches, "/device:CPU:0"))
    next(iterator)
    in_hands = 2  # one of the copy, and one of the prefetch, which may wait for room
    assert len(pulled) <= 1 + transfer.AHEAD + in_hands
