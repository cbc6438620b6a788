"""What the machine does to a process: little memory, few descriptors, short reads, a clock that is set back.

The table of docs/reliability.md names these tests, and those of the modules that have faults of their own.
"""

import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from deepduel.decoding.split import Split
from tests.helpers import bombs, folders
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools import progress

NOBODY = 65_534

CONVERT = """
import resource, sys
from tfrecords_tools import cli, convert, verify
number, limit, images, shards = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
resource.setrlimit(number, (limit, limit))
words = [f"--input_dir={images}", f"--output_dir={shards}", "--workers=1", "--max_rejected=0.5"]
words.append("--num_shards=20")
code = cli.run(convert.main, convert.FLAGS, name="convert", argv=["convert", *words])
sys.exit(code or cli.run(verify.main, verify.FLAGS, name="verify", argv=["verify", f"--data_dir={shards}"]))
"""


def limited(number: int, limit: int, images, shards) -> subprocess.CompletedProcess:
    """Converts and verifies a folder in a process with a limit of the system."""
    words = [sys.executable, "-c", CONVERT, number, limit, images, shards]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=100)


@pytest.mark.slow
def test_a_limit_on_memory_rejects_the_image_that_needs_more(tmp_path):
    images = folders.make(tmp_path / "images", {"a": 3, "b": 3})
    (images / "a" / "large.png").write_bytes(bombs.png(9_000, 9_000, 0, 1))
    result = limited(resource.RLIMIT_AS, 900_000_000, images, tmp_path / "shards")
    assert result.returncode == 0, result.stderr
    rejected = (tmp_path / "shards" / "rejected.csv").read_text()
    assert "a/large.png,decoding it needs more memory than is available" in rejected
    assert len(stored(tmp_path / "shards")) == 6


@pytest.mark.slow
def test_few_descriptors_are_enough_to_convert_and_verify(tmp_path):
    images = folders.make(tmp_path / "images", {"a": 20, "b": 20})
    result = limited(resource.RLIMIT_NOFILE, 24, images, tmp_path / "shards")
    assert result.returncode == 0, result.stderr
    assert len(stored(tmp_path / "shards")) == 40


def test_reads_that_return_fewer_bytes_than_requested_are_continued(tmp_path, monkeypatch):
    """As network and user-space file systems do."""
    images = folders.make(tmp_path / "images", {"train/a": 3, "train/b": 3})
    assert convert_to(tmp_path / "shards", images) == 0
    read, pread = os.read, os.pread
    monkeypatch.setattr(os, "read", lambda file, size: read(file, -(-size // 3)))
    monkeypatch.setattr(os, "pread", lambda file, size, start: pread(file, -(-size // 3), start))
    assert convert_to(tmp_path / "again", images) == 0
    split = Split(tmp_path / "again", "train")
    for record in range(len(split)):
        assert split.image(record) == (images / split.key(record).decode()).read_bytes()
    assert folders.sums(tmp_path / "again") == folders.sums(tmp_path / "shards")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_written_to_is_one_line_and_stays_as_it_is():
    """Root may write anywhere, so the process becomes another user."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        root = pathlib.Path(folder)
        root.chmod(0o755)
        images = folders.make(root / "images", {"a": 2, "b": 2})
        assert convert_to(root / "shards", images) == 0
        before = folders.sums(root / "shards")
        program = (
            # What is imported late, since Python's own folder may be closed to another user.
            "import os, sys, encodings.utf_8_sig, filelock\nfrom tfrecords_tools import cli, convert\n"
            f"os.setgid({NOBODY}); os.setuid({NOBODY})\nos.environ['HOME'] = '/'\n"
            "sys.exit(cli.run(convert.main, convert.FLAGS, name='convert', argv=['convert', *sys.argv[1:]]))"
        )
        new, old = f"--output_dir={root}/new", f"--output_dir={root}/shards"
        for words in (("--seed=1", new), ("--repair", old)):
            command = [sys.executable, "-c", program, f"--input_dir={images}", "--workers=1", *words]
            result = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert (result.returncode, result.stderr.strip().count("\n")) == (1, 0), result.stderr
            assert "Permission denied" in result.stderr
        assert folders.sums(root / "shards") == before


def test_a_clock_that_is_set_back_changes_no_rate_and_no_result(tmp_path, monkeypatch):
    images = folders.make(tmp_path / "images", {"a": 2, "b": 2})
    assert convert_to(tmp_path / "shards", images) == 0
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 1e6 * np.random.default_rng().random())
    assert convert_to(tmp_path / "again", images) == 0
    assert folders.sums(tmp_path / "again") == folders.sums(tmp_path / "shards")
    assert progress.Progress("x")._clock is time.monotonic


DECODE = """
import sys
import numpy as np
from deepduel.decoding import worker_pool
from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
pool = worker_pool.spent(2, worker_pool.STARTS_AFTER)
assert pool.ready.wait(60)
batch = BatchDecoder(Split(sys.argv[1], "train"), DecodeOptions((256, 256)), threads=2)(np.arange(40) % 6)
assert batch.nbytes > 7e6 and batch.std() > 5
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="mounts a /dev/shm of its own")
def test_a_tiny_shared_memory_file_system_is_no_limit(tmp_path):
    """Containers have 64 MB there by default; batches lie in memory files of their own."""
    images = folders.make(tmp_path / "images", {"train/a": 3, "train/b": 3})
    assert convert_to(tmp_path / "shards", images) == 0
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root, or the right to mount")
    script = f'{mount} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", DECODE, f"{tmp_path}/shards"]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert result.returncode == 0, result.stderr
