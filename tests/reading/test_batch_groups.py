import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from deepduel.decoding.buffers import BatchBuffers
from deepduel.reading import batch_groups
from deepduel.reading.batch_groups import BatchRange

ROWS = 64


@pytest.mark.parametrize("epoch", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_groups_hold_every_batch_once_and_in_order(epoch, size):
    for first in range(2 * epoch + 1):
        endless, finite = (BatchRange(first, epoch, endless=endless) for endless in (True, False))
        assert endless.count is None
        assert endless.groups(size).count is None
        groups = [endless.groups(size)[index] for index in range(3 * epoch + 2)]
        numbers = [number for group in groups for number in group]
        assert numbers == list(range(first, first + len(numbers)))
        assert len(groups[0]) == 1
        assert all(1 <= len(group) <= size for group in groups)
        for group in groups:
            last = [number for number in group if number % epoch == epoch - 1]
            assert not last or len(group) == 1  # it may have fewer rows
        until_end = [finite.groups(size)[index] for index in range(finite.groups(size).count)]
        assert until_end == groups[: len(until_end)]
        assert until_end[-1].stop % epoch == 0
        assert sum(map(len, until_end)) == finite.count <= epoch


def test_an_epoch_without_batches_has_no_groups():
    assert BatchRange(0, 0, endless=False).count == BatchRange(0, 0, endless=False).groups(8).count == 0


def test_full_groups_begin_at_the_same_batches_wherever_one_starts():
    from_0, from_2 = (
        [list(BatchRange(first, 10, endless=True).groups(4)[index]) for index in range(6)] for first in (0, 2)
    )
    assert from_0 == [[0], [1, 2, 3], [4, 5, 6, 7], [8], [9], [10, 11, 12, 13]]
    assert from_2 == [[2], [3], [4, 5, 6, 7], [8], [9], [10, 11, 12, 13]]


def test_later_epochs_may_have_larger_groups():
    groups = BatchRange(1, 8, endless=True).groups(2, later=5)
    assert [list(groups[index]) for index in range(7)] == [
        [1],
        [2, 3],
        [4, 5],
        [6],
        [7],
        [8, 9, 10, 11, 12],
        [13, 14],
    ]
    assert groups[7] == range(15, 16)


@pytest.mark.parametrize(
    ("batch_bytes", "size"),
    [(1, 8), (6 << 20, 8), (10 << 20, 4), (15_360_000, 3), (30 << 20, 1), (1 << 30, 1)],
)
def test_a_group_is_bounded_in_bytes_and_batches(batch_bytes, size):
    assert batch_groups.group_size(batch_bytes) == size


@pytest.mark.parametrize(("batch_bytes", "size"), [(1, 24), (15_360_000, 6), (60 << 20, 1)])
def test_groups_of_cached_batches_are_larger(batch_bytes, size):
    assert batch_groups.group_size(batch_bytes, cached=True) == size


def test_large_batches_that_tensorflow_would_copy_are_left_alone():
    assert batch_groups.group_size((6 << 20) + 1) == 1
    assert batch_groups.group_size((1 << 20) - 1) == 8


def pixels(numbers, memories):
    """uint8 [rows of all, 8], each row with its batch's number; adds a weak reference to `memories`."""
    pixels = BatchBuffers().take((len(numbers) * ROWS, 8)).pixels  # aligned: TensorFlow does not copy it
    memories.append(weakref.ref(pixels.base))
    pixels[:] = np.repeat(np.array(numbers, np.uint8), ROWS)[:, None]
    return [pixels]


def dataset(end, memories, size=4):
    specs = [tf.TensorSpec((ROWS, 8), tf.uint8)]
    load = lambda numbers: pixels(numbers, memories)
    return batch_groups.batches(
        BatchRange(0, 100 if end is None else end, endless=end is None),
        load,
        specs,
        lambda part: part,
        size=size,
        parallel=1,
    )


def test_batches_are_slices_of_the_memory_of_their_group():
    addresses = [np.asarray(batch).ctypes.data for batch in list(dataset(9, []))]
    assert np.diff(addresses)[[1, 2, 4, 5, 6]].tolist() == [ROWS * 8] * 5  # [0] [1 2 3] [4 5 6 7] [8]


def test_the_memory_of_a_group_is_given_back():
    memories = []
    for number, batch in enumerate(dataset(13, memories)):
        assert (batch.numpy() == number).all()
        if number == 9:  # of [8, 9, 10, 11]
            kept = batch
    del batch
    tf.numpy_function(lambda: np.float32(0), [], tf.float32)
    gc.collect()
    assert [memory() is not None for memory in memories] == [False, False, False, True, False]
    assert (kept.numpy() == 9).all()
    del kept
    tf.numpy_function(lambda: np.float32(0), [], tf.float32)  # TensorFlow lets go of arrays at its next call
    gc.collect()
    assert [len(memories), sum(memory() is not None for memory in memories)] == [5, 0]


@pytest.mark.parametrize("end", [0, 1, 5, None])
def test_the_data_set_knows_its_length(end):
    batches = dataset(end, [])
    assert batches.cardinality() == (tf.data.INFINITE_CARDINALITY if end is None else end)
    assert len(list(batches.take(30))) == (30 if end is None else end)
    assert batches.element_spec.shape == (ROWS, 8)
