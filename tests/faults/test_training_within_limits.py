"""Training and prediction in a process that may have little: few descriptors, little memory, a small disk."""

import os
import pathlib
import resource
import shutil
import subprocess
import sys

import pytest

from tests.helpers import bombs, folders
from tests.helpers.conversions import convert_to

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "MALLOC_ARENA_MAX": "2"}

pytestmark = [pytest.mark.slow, pytest.mark.scale]

HEAD = """
import pathlib, resource, subprocess, sys
from tests.conftest import run_command
from tests.helpers import tiny_network
tiny_network.install()
from deepduel import predict, train

shards, root = sys.argv[1:3]

def fit(*words):
    quick = "--augmentation=none", "--micro_batch=60", "--batch_size=16"
    data = f"--data_dir={shards}", f"--workdir={root}/run", "--validation_split=train"
    return run_command(train, *data, *tiny_network.RUN, *quick, *words)

def answer(images, *words):
    output = f"--output={root}/answers.csv"
    return run_command(predict, f"--workdir={root}/run", f"--images={images}", output, *words)
"""


def run(program, *words, before=()) -> subprocess.CompletedProcess:
    command = [*before, sys.executable, "-c", HEAD + program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    return folders.make(tmp_path / "images", {"train/a": 20, "train/b": 20})


def test_few_descriptors_are_enough_to_train_and_to_predict(images, tmp_path):
    """64 of them, with 40 shards for training and for validation each."""
    assert convert_to(tmp_path / "shards", images, "--num_shards=40") == 0
    program = f"""
resource.setrlimit({resource.RLIMIT_NOFILE}, (64, 64))
sys.exit(fit("--epochs=2") or answer(shards, "--split=train"))
"""
    result = run(program, tmp_path / "shards", tmp_path)
    assert result.returncode == 0, result.stderr[-3_000:]
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 41


def test_a_limit_on_memory_leaves_out_the_image_that_needs_more(images, tmp_path):
    """TensorFlow itself has what it needs, since the first calls were without the limit.

    They are without that image too, of whose memory a part would remain to the process.
    """
    assert convert_to(tmp_path / "shards", images) == 0
    first, limited = shutil.copytree(images, tmp_path / "first images"), tmp_path / "limited"
    large = bombs.png(9_000, 9_000, 0, 1)  # 0.7 GB to decode
    (images / "train" / "a" / "large.png").write_bytes(large)
    assert convert_to(limited / "shards", images) == 0
    program = f"""
words = "--epochs=1", "--host_size=24", "--on_error=skip"
assert fit(*words) == answer(sys.argv[3]) == 0
size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit({resource.RLIMIT_AS}, (size + 300_000_000,) * 2)
shards, root, images = sys.argv[4:7]
assert fit(*words) == 0
sys.exit(answer(images))
"""
    result = run(program, tmp_path / "shards", tmp_path, first, limited / "shards", limited, images)
    assert result.returncode == 0, result.stderr[-3_000:]
    assert "left out: " in result.stderr and "more memory than is available" in result.stderr, result.stderr[
        -3_000:
    ]
    assert len((limited / "answers.csv").read_text().splitlines()) == 41
    rejected = (limited / "answers.rejected.csv").read_text()
    assert "large.png,decoding it needs more memory than is available" in rejected


@pytest.mark.skipif(shutil.which("unshare") is None, reason="mounts a disk of its own: needs unshare")
def test_a_training_on_a_disk_that_is_really_full_resumes_when_it_has_space(images, tmp_path):
    """A tmpfs of 300 kB, and then of 30 MB."""
    assert convert_to(tmp_path / "shards", images) == 0
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root, or the right to mount")
    program = """
from deepduel.runs import disk_space
disk_space.check = lambda *words, **options: None  # that would refuse to begin
print("code", fit("--epochs=40"))
subprocess.run(["mount", "-o", "remount,size=30m", root], check=True)
sys.exit(fit("--epochs=40"))
"""
    before = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    result = run(program, tmp_path / "shards", disk, before=before)
    assert result.returncode == 0, result.stderr[-3_000:]
    assert "code 1" in result.stdout and "No space left on device" in result.stderr, result.stderr[-3_000:]
    assert "resuming at epoch" in result.stdout
