"""A data set that is no longer used leaves nothing behind."""

import gc
import pathlib
import time
import weakref

import pytest

from deepduel.reading import pipeline


def files():
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def threads():
    """Those of TensorFlow too."""
    return len(list(pathlib.Path("/proc/self/task").iterdir()))


def come_down(limits, seconds=5.0):
    """Waits for what still reads ahead."""
    end = time.monotonic() + seconds
    while (files(), threads()) != limits and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
    return files() <= limits[0] and threads() <= limits[1]


@pytest.fixture
def quick_collections():
    """They leave out what other tests have made, which takes a second to look through."""
    gc.collect()
    gc.freeze()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_collections")
@pytest.mark.parametrize("cache", ["none", pytest.param("ram", marks=pytest.mark.scale), "decoded:"])
def test_data_sets_that_are_dropped_leave_no_descriptor_and_no_thread(toy_shards, tmp_path, cache):
    options = {"cache": f"{cache}{tmp_path}" if cache == "decoded:" else cache}
    for cycle in range(6):
        train = pipeline.make_train(toy_shards, batch_size=32, labels="category", threads=2, **options)
        iterator = iter(train)
        for _ in range(3):
            next(iterator)
        for _ in pipeline.make_eval(toy_shards, batch_size=32, **options):
            pass
        dropped = weakref.ref(train)
        del train, iterator
        gc.collect()
        assert dropped() is None
        if not cycle:  # TensorFlow opens files of its own
            time.sleep(0.3)
            gc.collect()
            first = files(), threads()
    assert come_down(first)
