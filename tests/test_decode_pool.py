"""Decoding by processes: the pixels of one process, whatever happens to the others."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from deepduel import decode_pool
from deepduel.decode import BatchDecoder
from deepduel.fitting import FITS, Decoding
from deepduel.shards import Split
from tests.conftest import run_command
from tests.test_faults import spoil
from tfrecords_tools import convert
from tfrecords_tools.cli import DataError


@pytest.fixture
def pool(monkeypatch):
    """Two processes at work; without them it decodes in this process, as a first batch is."""
    decode_pool.spent(2, decode_pool.STARTS_AFTER)
    found = decode_pool._pools[2]
    assert found.ready.wait(30)
    yield found
    decode_pool._pools.pop(2, None)


def decoders(split, decoding, monkeypatch, **options):
    """(in this process alone, by the pool)."""
    return BatchDecoder(split, decoding, threads=99, **options), BatchDecoder(split, decoding, threads=2, **options)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(32, 32), (20, 25)])
def test_pixels_are_those_of_one_process(toy_shards, pool, monkeypatch, size, fit, fast):
    split = Split(toy_shards, "train")
    here, there = decoders(split, Decoding(size, fit, fast), monkeypatch)
    records = np.random.default_rng(0).permutation(len(split))
    seeds = np.random.default_rng(1).integers(-(2**31), 2**31, (len(records), 2), np.int32)
    assert (here(records, seeds=seeds) == there(records, seeds=seeds)).all()
    assert (here(records) == there(records)).all()
