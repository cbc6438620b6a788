import numpy as np
import pytest
import tensorflow as tf

from deepduel import order


def test_an_epoch_visits_every_record_once():
    assert sorted(order.permutation(1000, seed=0, epoch=0)) == list(range(1000))


def test_the_order_is_pinned_for_ever():
    assert order.permutation(8, seed=0, epoch=0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert order.permutation(8, seed=7, epoch=3).tolist() == [2, 5, 7, 3, 0, 6, 4, 1]


def test_epochs_and_seeds_differ():
    first = order.permutation(1000, seed=0, epoch=0)
    for seed, epoch in ((0, 1), (1, 0), (1, 1)):
        assert (order.permutation(1000, seed=seed, epoch=epoch) == first).mean() < 0.02


@pytest.mark.parametrize("records", [0, 1, 2])
def test_the_smallest_splits(records):
    assert sorted(order.permutation(records, seed=0, epoch=0)) == list(range(records))


def test_all_permutations_are_equally_likely():
    """24 permutations of 4 records over 4,800 epochs: chi-squared with 23 degrees of freedom."""
    counts: dict = {}
    for epoch in range(4800):
        key = tuple(order.permutation(4, seed=3, epoch=epoch))
        counts[key] = counts.get(key, 0) + 1
    chi_squared = sum((count - 200) ** 2 / 200 for count in counts.values()) + 200 * (24 - len(counts))
    assert chi_squared < 49.7  # exceeded once in a thousand seeds


def test_neighbours_are_independent():
    permutation = order.permutation(100_000, seed=0, epoch=0)
    assert abs(np.corrcoef(permutation[:-1], permutation[1:])[0, 1]) < 0.01


def test_steps_count_the_partial_batch():
    assert [order.steps_per_epoch(records, 32) for records in (0, 1, 32, 33)] == [0, 1, 1, 2]


def test_seeds_belong_to_the_record_and_the_epoch():
    seeds = order.image_seeds(np.array([5, 9]), seed=0, epoch=2)
    assert seeds.dtype == np.int32
    assert (order.image_seeds(np.array([9, 5]), seed=0, epoch=2) == seeds[::-1]).all()
    assert (order.image_seeds(np.array([5, 9]), seed=0, epoch=3)[:, 0] != seeds[:, 0]).all()
    assert (order.image_seeds(np.array([5, 9]), seed=1, epoch=2)[:, 0] != seeds[:, 0]).all()


def test_the_epoch_word_is_the_same_in_a_graph():
    words = tf.function(lambda epoch: order.epoch_word(12345, epoch))
    for epoch in (0, 1, 2**20):
        assert int(words(tf.constant(epoch, tf.int64))) == order.epoch_word(12345, epoch)


def test_a_negative_position_is_refused():
    with pytest.raises(ValueError, match="step must be from 0"):
        order.Position(0, 0, -1)
