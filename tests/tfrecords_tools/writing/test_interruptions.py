"""Conversions that are killed, run out of disk, or meet another one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.helpers import folders
from tfrecords_tools import workers
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest


def start(images, output, *words: str) -> subprocess.Popen:
    """The converter as a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "tfrecords_tools.convert",
        f"--input_dir={images}",
        f"--output_dir={output}",
    ]
    return subprocess.Popen(
        [*command, "--num_shards=12", "--workers=2", *words], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """360 images, and what an uninterrupted conversion makes of them (sums by file), in how many seconds."""
    root = folders.duel(tmp_path_factory.mktemp("many") / "many", each=40, size=16)
    began = time.monotonic()
    process = start(root, root.parent / "whole")
    assert process.wait() == 0, process.stderr.read()
    return root, folders.sums(root.parent / "whole"), time.monotonic() - began


@pytest.mark.slow
def test_killed_at_20_random_instants_it_goes_on_to_the_same_bytes(many, tmp_path):
    images, expected, seconds = many
    output, draw, kills = tmp_path / "out", random.Random(0), 0
    longest = {1: seconds, 2: seconds}  # by workers: how long a run takes, corrected by each that ends
    while kills < 20:
        count = 1 + kills % 2
        began = time.monotonic()
        process = start(images, output, f"--workers={count}")
        # Some die early, some between two shards, some at the manifest.
        try:
            process.wait(draw.uniform(0.3, 1.0) * longest[count])
            assert process.returncode == 0, process.stderr.read()
            longest[count] = 0.9 * (time.monotonic() - began)
            assert folders.sums(output) == expected
            shutil.rmtree(output)
            continue
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        # Whatever is published is whole, at every instant.
        for path in output.glob("*.tfrecord-*-of-00012"):
            assert folders.hashlib.sha256(path.read_bytes()).hexdigest() == expected[path.name]
        if not (output / "manifest.json").exists():
            with pytest.raises(DataError, match=r"no manifest.json|no such folder"):
                manifest.load(output)
    process = start(images, output)
    assert process.wait() == 0, process.stderr.read()
    assert folders.sums(output) == expected


def children(pid: int) -> list[int]:
    """The converter's workers."""
    try:
        running = psutil.Process(pid).children()
        return [child.pid for child in running if "resource_tracker" not in " ".join(child.cmdline())]
    except psutil.Error:  # it ended while we looked
        return []


def wait_for(condition, seconds: float = 30):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_a_worker_killed_alone_is_replaced(many, tmp_path):
    images, expected, _ = many
    process = start(images, tmp_path / "out")
    worker = wait_for(lambda: children(process.pid))[0]
    os.kill(worker, signal.SIGKILL)
    assert process.wait(60) == 0, process.stderr.read()
    assert folders.sums(tmp_path / "out") == expected


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(many, tmp_path):
    images, expected, _ = many
    process = start(images, tmp_path / "out")
    workers_seen = wait_for(lambda: children(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers_seen))
    again = start(images, tmp_path / "out")
    assert again.wait(60) == 0, again.stderr.read()
    assert folders.sums(tmp_path / "out") == expected


def die_on_three(common, job, counts):
    counts.add(2)
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return job * 10


def test_a_job_that_kills_its_worker_twice_is_named():
    crew = workers.WorkerPool(die_on_three, None, workers=2, on_tick=lambda *counts: None)
    seen = []
    with pytest.raises(workers.WorkerDied, match="killed by SIGKILL") as death:
        for job, result in crew.run(range(6)):
            seen.append((job, result))
    assert (death.value.job, death.value.done) == (3, 2)
    assert all(result == job * 10 for job, result in seen)


def fail_on_three(common, job, counts):
    if job == 3:
        raise ValueError("three")


def test_an_exception_in_a_worker_reaches_the_parent_with_its_origin():
    crew = workers.WorkerPool(fail_on_three, None, workers=2, on_tick=lambda *counts: None)
    with pytest.raises(RuntimeError, match="(?s)in a worker:.*fail_on_three.*ValueError: three"):
        list(crew.run(range(6)))


@pytest.mark.parametrize("count", [1, 2])
def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_afterwards(many, tmp_path, count):
    images, expected, _ = many
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        process = start(images, small / "out", f"--workers={count}")
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 1 and "no space left" in error and "Traceback" not in error
        for path in (small / "out").glob("*.tfrecord-*-of-00012"):
            assert folders.hashlib.sha256(path.read_bytes()).hexdigest() == expected[path.name]
        assert not (small / "out" / "manifest.json").exists()
        subprocess.run(["mount", "-o", "remount,size=40m", small], check=True)
        process = start(images, small / "out")
        assert process.wait(60) == 0, process.stderr.read()
        assert folders.sums(small / "out") == expected
    finally:
        subprocess.run(["umount", small], check=True)


def test_two_conversions_into_one_folder_do_not_meet(many, tmp_path):
    images, expected, _ = many
    first = start(images, tmp_path / "out")
    wait_for(lambda: list((tmp_path / "out" / ".convert").glob("*.partial")))
    second = start(images, tmp_path / "out")
    error = second.communicate(timeout=60)[1]
    assert first.wait(60) == 0
    if second.returncode:  # or it came late and found all done
        assert "another conversion is writing here" in error
    assert folders.sums(tmp_path / "out") == expected
