"""Tests of what a GPU computes. `make test-gpu` runs them; without a GPU they are skipped.

DEEPDUEL_GPU_TESTS_ON=CPU runs them on the CPU all the same: that shows that the tests work, and says nothing
about a GPU.
"""

import os
import pathlib

import pytest
import tensorflow as tf

KIND = os.environ.get("DEEPDUEL_GPU_TESTS_ON", "GPU").upper()


def pytest_collection_modifyitems(items):
    own_folder = pathlib.Path(__file__).parent
    for item in items:
        if own_folder in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not tf.config.list_physical_devices(KIND):
                reason = f"TensorFlow sees no {KIND}; DEEPDUEL_GPU_TESTS_ON=CPU tries the test itself"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def device() -> str:
    """The device under test, such as "GPU:0"."""
    return f"{KIND}:0"


@pytest.fixture(scope="session")
def two_devices() -> str:
    """The kind of two devices; skips the test where there are fewer. TensorFlow can make two CPUs of one."""
    count = len(tf.config.list_physical_devices(KIND))
    if KIND != "CPU" and count < 2:
        pytest.skip(f"TensorFlow sees {count} {KIND}; two are needed")
    return KIND
