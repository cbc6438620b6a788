import numpy as np
import pytest

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.reading.options import ReadOptions
from deepduel.reading.sampling import Classes, Sampling
from tests.helpers.batches import numpy_batches
from tfrecords_tools.errors import UsageError

UNEVEN = Classes((np.arange(0, 2), np.arange(2, 10)), (1.0, 1.0))


@pytest.fixture(scope="module")
def split(toy_shards):
    return Split(toy_shards, "train")


def test_the_order_is_pinned_for_ever():
    records, repeats = UNEVEN.epoch(10, seed=0, epoch=0)
    assert records.tolist() == [0, 0, 7, 1, 6, 8, 1, 1, 5, 4]
    assert repeats.tolist() == [0, 1, 0, 0, 0, 0, 2, 1, 0, 0]


def test_classes_get_their_shares_and_go_round_their_records():
    for epoch in range(20):
        records, repeats = UNEVEN.epoch(10, seed=1, epoch=epoch)
        small = records[records < 2]
        assert np.bincount(small).tolist() in ([2, 3], [3, 2])
        assert len(set(records[records >= 2])) == 5
        assert len(set(zip(records.tolist(), repeats.tolist(), strict=True))) == 10


def test_each_record_of_a_class_is_drawn_equally_often_in_the_long_run():
    """8 records, 5 draws in each of 2,000 epochs: chi-squared with 7 degrees of freedom."""
    drawn = np.zeros(10)
    for epoch in range(2000):
        drawn += np.bincount(UNEVEN.epoch(10, seed=5, epoch=epoch)[0], minlength=10)
    expected = 10_000 / 8
    assert ((drawn[2:] - expected) ** 2 / expected).sum() < 24.3  # exceeded once in a thousand seeds


def test_quotas_are_whole_and_add_up():
    classes = Classes(tuple(np.arange(1) for _ in range(3)), (1.0, 1.0, 1.0))
    assert classes.quotas(10) == [4, 3, 3]
    assert Classes(classes.members, (5.0, 3.0, 2.0)).quotas(100) == [50, 30, 20]
    assert sum(Classes(classes.members, (0.1, 0.2, 0.7)).quotas(101)) == 101


@pytest.mark.parametrize(
    ("text", "axis", "shares"),
    [
        ("balanced:category", "category", (56, 56, 56)),
        ("balanced:authenticity", "authenticity", (84, 84)),
        ("weighted:authenticity:fake=3,real=1", "authenticity", (42, 126)),
    ],
)
def test_an_epoch_has_the_asked_mix_and_as_many_images(split, text, axis, shares):
    batches = numpy_batches(
        pipeline.train_batches(split, ReadOptions(50, sampling=text), order.Position(4)), 4
    )
    labels = np.concatenate([batch["labels"][axis] for batch in batches])
    assert tuple(np.bincount(labels)) == shares
    records = np.concatenate([batch["records"] for batch in batches])
    assert (split.labels[axis][records] == labels).all()


def test_without_an_axis_all_combinations_are_alike(split):
    batch = numpy_batches(
        pipeline.train_batches(split, ReadOptions(168, sampling="balanced"), order.Position()), 1
    )[0]
    cells = batch["labels"]["authenticity"] * 3 + batch["labels"]["category"]
    assert np.bincount(cells).tolist() == [28] * 6


def test_every_draw_of_a_record_has_a_state_of_its_own(split):
    reading = ReadOptions(168, sampling="weighted:authenticity:fake=1,real=50")
    batch = numpy_batches(pipeline.train_batches(split, reading, order.Position(9, 2)), 1)[0]
    assert len(set(batch["records"])) < 168
    assert len(set(map(tuple, batch["seeds"]))) == 168


def test_starting_anywhere_and_any_worker_gives_the_same(split):
    reading = ReadOptions(40, sampling="balanced:category")
    whole = numpy_batches(pipeline.train_batches(split, reading, order.Position(5)), 8)
    rest = numpy_batches(pipeline.train_batches(split, reading, order.Position(5, 1, 2)), 1)[0]
    assert (whole[7]["records"] == rest["records"]).all()
    assert (whole[7]["images"] == rest["images"]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("even", "sampling must be uniform, balanced, balanced:AXIS or weighted:AXIS"),
        ("balanced:", "sampling must be uniform"),
        ("weighted:category", "sampling must be uniform"),
        ("weighted:category:animals=0", "'animals=0' in .* must be NAME=SHARE with a number above 0"),
        ("weighted:category:animals", "must be NAME=SHARE"),
    ],
)
def test_a_text_that_means_nothing_is_refused_at_birth(text, message):
    with pytest.raises(UsageError, match=message):
        ReadOptions(8, sampling=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("balanced:colour", "has no label axis 'colour'; it has authenticity, category"),
        ("weighted:authenticity:real=1", "no share for fake of 'authenticity'; add NAME=SHARE"),
        ("weighted:authenticity:real=1,fake=1,odd=2", "has no label 'odd'; it has real, fake"),
    ],
)
def test_labels_that_the_split_has_not_are_named(split, text, message):
    with pytest.raises(UsageError, match=message):
        Sampling.parse(text).classes(split)


def test_a_split_without_labels_cannot_be_balanced(toy_shards):
    with pytest.raises(UsageError, match="no record of split 'test' has a label to balance by"):
        Sampling.parse("balanced").classes(Split(toy_shards, "test"))


def test_the_sequential_reader_refuses_sampling():
    with pytest.raises(UsageError, match="sampling=balanced needs reader=random"):
        ReadOptions(8, sampling="balanced", reader="sequential")
