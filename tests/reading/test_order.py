import numpy as np
import pytest
import tensorflow as tf

from deepduel.reading import order


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


def test_every_record_comes_equally_often_to_every_position():
    """10 records, 10 positions, 3,000 epochs: 81 degrees of freedom."""
    counts = np.zeros((10, 10))
    for epoch in range(3000):
        counts[order.permutation(10, seed=11, epoch=epoch), np.arange(10)] += 1
    assert ((counts - 300) ** 2 / 300).sum() < 126  # exceeded once in a thousand seeds


def test_every_record_follows_every_other_equally_often():
    """10 records have 90 ordered pairs of neighbours; 9 pairs in each of 3,000 epochs."""
    counts = np.zeros((10, 10))
    for epoch in range(3000):
        drawn = order.permutation(10, seed=12, epoch=epoch)
        np.add.at(counts, (drawn[:-1], drawn[1:]), 1)
    pairs = counts[~np.eye(10, dtype=bool)]
    assert counts.trace() == 0
    assert ((pairs - 300) ** 2 / 300).sum() < 136  # 89 degrees of freedom, once in a thousand


def test_batches_are_mixed_when_shards_were_written_class_by_class():
    """Four classes one after the other, 100 batches of 100: each batch a fair draw of all classes."""
    labels = np.repeat(np.arange(4), 2500)
    batches = labels[order.permutation(10_000, seed=13, epoch=0)].reshape(100, 100)
    counts = np.stack([np.bincount(batch, minlength=4) for batch in batches])
    statistic = ((counts - 25) ** 2 / 25).sum() * 9999 / 9900  # drawn without replacement
    assert 226 < statistic < 381  # 297 degrees of freedom, one in a thousand on either side


@pytest.mark.parametrize("rows", [0, 1, 3, 48, 50])
def test_the_parts_of_all_workers_are_the_batch(rows):
    for count in (1, 2, 4):
        parts = [order.Worker(index, count).part(rows) for index in range(count)]
        assert [at for begin, end in parts for at in range(begin, end)] == list(range(rows))


def test_a_worker_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="index must be from 0 to count - 1, got 2 of 2"):
        order.Worker(2, 2)
