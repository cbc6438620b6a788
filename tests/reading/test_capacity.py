"""The plan of a GPU's input follows from the costs of an image."""

import numpy as np
import pytest

from deepduel.reading import capacity

COSTS = capacity.Costs(0.001, 0.0001, 0.0002, 20_000, 150_528)  # 1,000 images/s per core, 5,000 received


@pytest.mark.parametrize(
    ("cores", "data_workers", "rate"), [(2, 0, 2_000), (2, 1, 2 / 0.0011), (2, 2, 4 / 0.0011), (16, 9, 5_000)]
)
def test_the_slowest_stage_decides(cores, data_workers, rate):
    assert capacity.predicted(COSTS, cores=cores, data_workers=data_workers) == pytest.approx(rate)


def planned(gpu_rate, *, cores=2, disk=float("inf"), reader="random"):
    return capacity.plan(COSTS, gpu_rate=gpu_rate, cores=cores, disk=disk, reader=reader)


def test_a_machine_that_is_fast_enough_needs_no_data_workers():
    assert "3 are enough, and data workers would not help" in planned(2_400, cores=4)
    assert "the disk delivers 300 images/s" in planned(2_400, cores=4, disk=300)


def test_a_slower_one_needs_cores_or_data_workers_and_a_network():
    text = planned(2_400)
    assert "2,000 images/s on 2 cores; 3 are needed" in text
    assert "1: 1,818, 2: 2,400" in text
    assert "361 MB/s of pixels to the trainer, 48 MB/s of encoded images" in text
    assert "96 MB/s of encoded images" in planned(2_400, reader="sequential")  # both read all
    assert "can receive at most 5,000 images/s" in planned(9_000)


def test_passing_images_on_costs_the_more_the_larger_they_are():
    small, large = (
        sum(capacity.connection_costs([np.zeros((8, side, side, 3), np.uint8)], 0.2)) for side in (64, 512)
    )
    assert 0 < small < large
