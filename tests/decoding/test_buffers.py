import gc
import os
import pathlib
import subprocess
import sys

import pytest

from deepduel.decoding import buffers
from deepduel.decoding.buffers import BatchBuffers, free_references

SHAPE = (4, 8, 8, 3)


@pytest.mark.parametrize("shared", [False, True])
def test_two_hundred_batches_need_two_buffers(shared):
    batches, numbers = BatchBuffers(shared=shared), set()
    for _ in range(200):
        one, other = batches.take(SHAPE), batches.take(SHAPE)
        numbers |= {one.number, other.number}
        del one, other
    assert len(numbers) == 2


def test_memory_is_used_again_and_aligned():
    batches = BatchBuffers()
    first = batches.take(SHAPE).pixels
    address = first.ctypes.data
    assert address % 64 == 0
    second = batches.take(SHAPE).pixels
    assert second.ctypes.data != address
    del first
    assert batches.take((2, 2, 8, 8, 3)).pixels.ctypes.data == address


@pytest.mark.parametrize("shared", [False, True])
def test_memory_with_a_view_of_a_view_is_not_handed_out(shared):
    batches = BatchBuffers(shared=shared)
    view = batches.take(SHAPE).pixels[1:3][:, ::2]
    view[...] = 7
    for _ in range(5):
        batches.take(SHAPE).pixels[...] = 0
    assert (view == 7).all()


def test_a_smaller_batch_uses_the_memory_of_a_larger_one_and_a_larger_one_replaces_it():
    batches = BatchBuffers()
    number = batches.take(SHAPE).number
    assert batches.take((1, 8, 8, 3)).number == number
    larger = batches.take((400, 8, 8, 3))
    assert larger.number != number
    assert larger.size >= larger.pixels.size == 400 * 8 * 8 * 3


def test_this_interpreter_counts_references_as_expected():
    free = free_references()
    assert free is not None
    assert free_references() == free


@pytest.mark.parametrize(
    "miscounted",
    [
        lambda memories, index: 7,  # views don't count
        lambda memories, index: 2 * sys.getrefcount(memories[index].owner),  # each counts twice
        lambda memories, index, calls=[0]: calls.append(0) or len(calls),  # each call differs
        lambda memories, index: 2**32 - 1,  # as CPython counts immortal objects
    ],
)
def test_a_count_that_does_not_follow_the_views_is_not_relied_on(miscounted):
    assert free_references(miscounted) is None


@pytest.mark.filterwarnings("ignore:Python .* doesn't count references")
@pytest.mark.parametrize("shared", [False, True])
def test_without_a_reliable_count_every_batch_gets_fresh_memory_and_keeps_none(shared):
    batches = BatchBuffers(shared=shared, free=None)
    gc.collect()
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    numbers = [batches.take(SHAPE).number for _ in range(50)]
    assert len(set(numbers)) == 50
    gc.collect()
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) == before


def test_an_interpreter_that_counts_otherwise_is_named_in_one_warning():
    program = (
        "import sys; sys.getrefcount = lambda thing: 7\n"
        "from deepduel.decoding.buffers import BatchBuffers\n"
        "batches = [BatchBuffers(), BatchBuffers(shared=True)]\n"
        "print(len({each.take((8, 8)).number for _ in range(20) for each in batches}))"
    )
    path = str(pathlib.Path(buffers.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout == "40\n"
    assert done.stderr.count("RuntimeWarning: Python 3.") == 1
    assert "memory is allocated anew for every batch" in done.stderr
