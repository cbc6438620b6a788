"""Disks that fail, fill up or return less than requested, seen by the C library: Python and TensorFlow alike.

`tests/helpers/fault_layer.c` is compiled here and loaded into the processes that are tried.
"""

import errno
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.helpers import folders

ROOT = pathlib.Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "helpers" / "fault_layer.c"
COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = pytest.mark.skipif(
    COMPILER is None or not sys.platform.startswith("linux"), reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("faults") / "layer.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", path, SOURCE, "-ldl"], check=True, timeout=60)
    return path


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    return folders.make(tmp_path / "images", {"train/a": 20, "train/b": 20})


def run(library, words, **faults) -> subprocess.CompletedProcess:
    """Runs Python with the layer; `faults`: its variables without FAULT_, in small letters."""
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)}
    environment |= {f"FAULT_{name.upper()}": str(value) for name, value in faults.items()}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


def convert(library, images, shards, **faults) -> subprocess.CompletedProcess:
    words = ["-m", "deepduel", "convert", f"--input_dir={images}", f"--output_dir={shards}", "--num_shards=2"]
    return run(library, words, **faults)


@pytest.mark.slow
def test_a_disk_that_fills_up_or_fails_while_shards_are_written_is_one_line_and_costs_nothing(
    library, images, tmp_path
):
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    assert convert(library, images, whole).returncode == 0
    for number, words in ((errno.ENOSPC, "no space left on the disk"), (errno.EIO, "Input/output error")):
        result = convert(library, images, shards, path="/shards/", write=number, after=3_000)
        line = result.stderr.splitlines()[-1]
        assert result.returncode == 1 and words in line and "Traceback" not in result.stderr, result.stderr
    result = convert(library, images, shards, path="/images/", short=100)
    assert result.returncode == 0, result.stderr
    assert folders.sums(shards) == folders.sums(whole)


@pytest.mark.slow
def test_a_disk_that_fails_under_the_images_or_the_shards_is_named(library, images, tmp_path):
    shards = tmp_path / "shards"
    result = convert(library, images, shards, path="/images/train/a/", read=errno.EIO)
    assert "Input/output error" in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert result.returncode == 1
    assert convert(library, images, shards).returncode == 0
    words = ["-m", "deepduel", "verify", f"--data_dir={shards}"]
    result = run(library, words, path=".tfrecord-00001", read=errno.EIO, after=1_000)
    assert result.returncode == 1
    assert "-00001-of-00002: unreadable (Input/output error)" in result.stdout, result.stdout


READ = """
import os, sys
import numpy as np
from deepduel import pipeline
def read(reader):
    batches = pipeline.make_eval(sys.argv[1], split="train", batch_size=16, labels="category", reader=reader)
    return [images.numpy() for images, _, _ in batches]
readers = "random", "sequential"
whole = [read(reader) for reader in readers]
os.environ |= {"FAULT_PATH": ".tfrecord-", "FAULT_SHORT": "100"}
for reader, batches in zip(readers, whole):
    assert len(batches) == 3
    for one, other in zip(batches, read(reader), strict=True):
        np.testing.assert_array_equal(one, other)
os.environ |= {"FAULT_READ": "5", "FAULT_AFTER": "1000"}
for reader in readers:
    try:
        read(reader)
    except Exception as error:
        print(reader, type(error).__name__, " ".join(str(error).split()))
"""


@pytest.mark.slow
def test_both_readers_continue_short_reads_and_name_the_shard_on_a_disk_that_fails(library, images, tmp_path):
    shards = tmp_path / "shards"
    assert convert(library, images, shards).returncode == 0
    result = run(library, ["-c", READ, shards])
    assert result.returncode == 0, result.stderr[-3_000:]
    lines = [line for line in result.stdout.splitlines() if line.startswith(("random ", "sequential "))]
    assert len(lines) == 2, result.stdout
    for line in lines:
        assert ".tfrecord-0000" in line and "Input/output error" in line, line
