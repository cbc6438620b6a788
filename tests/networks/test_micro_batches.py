import numpy as np
import pytest
import tensorflow as tf

from deepduel.networks.micro_batches import in_micro_batches

pytestmark = pytest.mark.numeric

ROWS = {"sum": tf.TensorSpec((), tf.float32), "seed": tf.TensorSpec((2,), tf.int32)}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 24])
def test_micro_batches_join_and_add_up_to_the_whole(count, compiled):
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8))
    seeds = tf.stack([tf.range(count), tf.range(count)], axis=1)

    def function(images, seeds, filled):
        assert images.shape == (8, 4, 4, 3)
        sums = tf.reduce_sum(tf.cast(images, tf.float32), axis=(1, 2, 3))
        return {"sum": sums, "seed": seeds}, [tf.reduce_sum(sums), tf.cast(filled, tf.float32)]

    def whole(images, seeds):
        sums = [tf.TensorSpec((), tf.float32)] * 2
        return in_micro_batches(function, images, seeds, rows=ROWS, sums=sums, micro_batch=8)

    joined, (total, rows) = (tf.function(whole) if compiled else whole)(images, seeds)
    expected = images.numpy().astype(np.float32).sum(axis=(1, 2, 3))
    assert (joined["sum"].numpy() == expected).all()
    assert (joined["seed"].numpy() == seeds.numpy()).all()
    assert (float(total), float(rows)) == (expected.sum(), count)


def test_parts_are_even():
    sizes = []

    def function(rows, filled):
        sizes.append(int(filled))
        return rows, ()

    spec = tf.TensorSpec((), tf.float32)
    in_micro_batches(function, tf.zeros(65), rows=spec, micro_batch=32)
    assert sizes == [21, 22, 22]
