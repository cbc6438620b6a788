"""Decoding by processes: the pixels of one process, whatever happens to the others."""

import concurrent.futures
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from deepduel.decoding import worker_pool
from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.image import FITS, DecodeOptions
from deepduel.decoding.split import Split
from tests.conftest import run_command
from tests.helpers.batches import spoil
from tests.helpers.object_store import upload
from tfrecords_tools import convert
from tfrecords_tools.errors import DataError

# Threads: of a pool that never starts, of the one that the fixture starts, and of one that no data set of
# another test keeps.
ALONE, POOLED, UNSHARED = 99, 2, 3

TOY = DecodeOptions((32, 32))


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No pool of ALONE processes, however long this process decodes."""
    monkeypatch.setattr(worker_pool, "_unavailable", {ALONE})


@pytest.fixture
def pool():
    started = worker_pool.spent(POOLED, worker_pool.STARTS_AFTER)
    assert started.ready.wait(60)
    return started


def both(split, decoding=TOY, **options):
    """Decoders of the same batches: in this process alone, and by the pool."""
    return [BatchDecoder(split, decoding, threads=threads, **options) for threads in (ALONE, POOLED)]


def run(program, *words, **options):
    words = [sys.executable, "-c", textwrap.dedent(program), *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, **options)


def wait_until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(process: int) -> bool:
    for _ in range(3_000):  # 30 s: a busy machine is slow to reap
        try:
            if pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):  # the latter between opening and reading
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(32, 32), (20, 25)])
def test_pixels_are_those_of_one_process(toy_shards, pool, size, fit, fast):
    split = Split(toy_shards, "train")
    in_process, pooled = both(split, DecodeOptions(size, fit, fast))
    records = np.random.default_rng(0).permutation(len(split))
    seeds = np.random.default_rng(1).integers(-(2**31), 2**31, (len(records), 2), np.int32)
    assert (in_process(records, seeds=seeds) == pooled(records, seeds=seeds)).all()
    assert (in_process(records) == pooled(records)).all()


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_images_that_are_no_jpegs_are_decoded_too(toy_folder, tmp_path, pool, encoding):
    words = (
        f"--input_dir={toy_folder}",
        f"--output_dir={tmp_path}/shards",
        f"--encoding={encoding}",
        "--image_size=32",
    )
    assert run_command(convert, *words, "--workers=1") == 0
    split = Split(tmp_path / "shards", "validation")
    in_process, pooled = both(split, DecodeOptions((20, 25)))
    assert (in_process(np.arange(54)) == pooled(np.arange(54))).all()


@pytest.mark.parametrize("count", [0, 1, 5, 168])
def test_any_number_of_images_and_black_padding(toy_shards, pool, count):
    in_process, pooled = both(Split(toy_shards, "train"))
    pooled(np.arange(168))  # leaves pixels in the buffer that is used again
    batch = pooled(np.arange(count), rows=170)
    assert batch.shape == (170, 32, 32, 3)
    assert (batch[:count] == in_process(np.arange(count))).all()
    assert not batch[count:].any()


def test_more_tasks_than_the_sockets_hold(toy_shards, pool):
    in_process, pooled = both(Split(toy_shards, "train"))
    records = np.arange(20_000) % 168
    assert (pooled(records) == in_process(records[:168])[records]).all()


def test_several_threads_share_the_processes(toy_shards, pool):
    split = Split(toy_shards, "train")
    in_process, pooled = both(split)
    expected = in_process(np.arange(168))
    picks = [np.random.default_rng(seed).permutation(168)[: 20 + seed] for seed in range(100)]
    with concurrent.futures.ThreadPoolExecutor(20) as threads:  # more than may be under way at once
        decoded = list(threads.map(pooled, picks))
    assert all((batch == expected[records]).all() for batch, records in zip(decoded, picks, strict=True))


def test_images_from_another_machine_are_handed_over(toy_shards, pool):
    split = Split(toy_shards, "train")
    in_process, pooled = both(split)
    expected = in_process(np.arange(100))
    split.local = False
    assert (pooled(np.arange(100)) == expected).all()


def test_shards_beyond_the_limit_of_open_files_are_opened_for_a_task(toy_shards, pool):
    split = Split(toy_shards, "train")
    in_process, pooled = both(split)
    expected = in_process(np.arange(168))
    os.close(split._files.pop())
    files = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    assert (pooled(np.arange(168)) == expected).all()
    assert (
        len(list(pathlib.Path("/proc/self/fd").iterdir())) <= files + 2
    )  # one batch's memory: ours, and mmap's own


def test_memory_stays_flat_and_is_given_back(toy_shards, pool):
    def shared():  # bytes of batches that a worker has mapped, and descriptors of them here
        status = pathlib.Path(f"/proc/{pool.workers[0].pid}/status").read_text()
        files = pathlib.Path("/proc/self/fd").iterdir()
        links = [str(file.readlink()) for file in files if file.is_symlink()]
        return int(status.partition("RssShmem:")[2].split()[0]) << 10, sum(
            "deepduel-batch" in x for x in links
        )

    gc.collect()
    before = shared()
    pooled = BatchDecoder(Split(toy_shards, "train"), TOY, threads=POOLED)
    records = np.arange(2000) % 168  # 6 MB
    for _ in range(30):
        batch = pooled(records)
    during = shared()
    assert during[0] < before[0] + 3 * batch.nbytes
    assert during[1] <= before[1] + 2 * 2  # the present batch and the one before it
    del pooled, batch
    gc.collect()
    after = shared()
    assert after[0] < before[0] + (1 << 20)
    assert after[1] <= before[1]


def test_a_bad_record_is_named_as_in_one_process(toy_shards, tmp_path, pool, capfd):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    spoil(folder, 7, 60)
    messages = []
    for decode in both(Split(folder, "train")):
        with pytest.raises(DataError, match=r"record 7 \(key train/.*does not decode") as caught:
            decode(np.arange(100))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    batches, bad = [], []
    for threads in (ALONE, POOLED):
        split = Split(folder, "train")
        batches.append(
            BatchDecoder(split, DecodeOptions((32, 32)), threads=threads, on_error="skip")(np.arange(100))
        )
        bad.append(split.bad)
    assert (batches[0] == batches[1]).all() and not batches[1][[7, 60]].any()
    assert bad[0] == bad[1] and sorted(bad[1]) == [7, 60]
    assert capfd.readouterr().err.count("left out: ") == 4


def test_a_shard_cut_short_is_named_and_a_removed_one_read_as_it_was(toy_shards, tmp_path, pool):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    split = Split(folder, "train")
    in_process, pooled = both(split)
    expected = in_process(np.arange(168))
    (folder / split.shards[0].file).unlink()
    assert (pooled(np.arange(168)) == expected).all()
    os.truncate(folder / split.shards[1].file, 4096)
    with pytest.raises(DataError, match="-00001-of-00003: ends before byte .* truncated since it was opened"):
        pooled(np.arange(168))


def test_a_worker_that_is_killed_ends_the_calls_and_the_next_one_starts_anew(toy_shards, pool):
    in_process, pooled = both(Split(toy_shards, "train"))
    expected = in_process(np.arange(168))
    pooled(np.arange(168))
    for worker in pool.workers:  # so that the calls surely wait
        os.kill(worker.pid, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(pooled, np.arange(168)) for _ in range(4)]
        time.sleep(0.1)
        assert not any(call.done() for call in calls)
        os.kill(pool.workers[0].pid, signal.SIGKILL)
        errors = [call.exception(30) for call in calls]
    message = (
        "a decoding process ended by SIGKILL; the system does that when memory runs out; if memory ran out"
    )
    assert all(isinstance(error, DataError) and str(error).startswith(message) for error in errors)
    assert ended(pool.workers[1].pid)
    assert (pooled(np.arange(168)) == expected).all()  # in this process
    assert not worker_pool.shared(POOLED)


def test_workers_end_with_their_parent_however_it_ends(toy_shards):
    program = """
        import os, signal, sys
        import numpy as np
        from deepduel.decoding import worker_pool
        from deepduel.decoding.batch_decoder import BatchDecoder
        from deepduel.decoding.image import DecodeOptions
        from deepduel.decoding.split import Split
        pool = worker_pool.spent(2, worker_pool.STARTS_AFTER)
        pool.ready.wait(60)
        BatchDecoder(Split(sys.argv[1], "train"), DecodeOptions((32, 32)), threads=2)(np.arange(168))
        print(*(worker.pid for worker in pool.workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "kill" else sys.exit(3)
    """
    for how, code in (("kill", -signal.SIGKILL), ("exit", 3)):
        done = run(program, toy_shards, how)
        assert done.returncode == code, done.stderr
        assert not done.stderr
        workers = [int(word) for word in done.stdout.split()]
        assert len(workers) == 2 and all(map(ended, workers))


@pytest.mark.slow
def test_a_process_that_exits_while_batches_are_being_read_ends(toy_shards):
    program = """
        import sys
        from deepduel.decoding import worker_pool
        from deepduel.reading import order, pipeline
        from deepduel.decoding.split import Split
        split = Split(sys.argv[1], "train")
        batches = iter(pipeline.train_batches(split, pipeline.ReadOptions(8, threads=2), order.Position()))
        next(batches)
        pool = worker_pool.spent(2, worker_pool.STARTS_AFTER)
        pool.ready.wait(60)
        for _ in range(50):
            next(batches)
        sys.exit(3)
    """
    done = run(program, toy_shards)
    assert done.returncode == 3, done.stderr[-2000:]


def test_the_users_main_module_is_not_run_again(toy_shards, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "print('run')\n"
        "from deepduel.decoding import worker_pool\n"
        "pool = worker_pool.spent(2, worker_pool.STARTS_AFTER)\n"
        "print(pool.ready.wait(60))\n"
    )
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the folder was imported')\n")
    path = str(pathlib.Path(worker_pool.__file__).parents[2])
    words = [sys.executable, "-P", str(script)]
    done = subprocess.run(
        words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["run", "True"], done.stderr
    assert not done.stderr


def test_workers_end_with_the_last_decoder_that_uses_them(toy_shards):
    others = set(threading.enumerate())
    pool = worker_pool.spent(UNSHARED, worker_pool.STARTS_AFTER)
    assert pool.ready.wait(60)
    workers = [worker.pid for worker in pool.workers]
    files = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    decoders = [BatchDecoder(Split(toy_shards, "train"), TOY, threads=UNSHARED) for _ in range(2)]
    for decode in decoders:
        decode(np.arange(100))
    del pool, decode
    decoders.pop()
    gc.collect()
    assert not any(pathlib.Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z" for worker in workers)
    decoders.pop()
    gc.collect()
    assert all(map(ended, workers))
    assert worker_pool.shared(UNSHARED) is None
    wait_until(
        lambda: not any(thread.name == "decode-pool" for thread in set(threading.enumerate()) - others), 30
    )
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) < files
    assert not any(pathlib.Path(f"/proc/{worker}").exists() for worker in workers)  # reaped too


def test_a_worker_whose_parent_ends_while_it_starts_is_silent(tmp_path):
    program = """
        import os, signal
        from deepduel.decoding import worker_pool
        pool = worker_pool.spent(2, worker_pool.STARTS_AFTER)
        print(*(worker.pid for worker in pool.workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run(program)  # returns when the workers, too, have closed stderr
    assert len(done.stdout.split()) == 2
    assert all(ended(int(worker)) for worker in done.stdout.split())
    assert not done.stderr


def test_workers_need_no_tensorflow(toy_shards):
    heavy = "[name for name in ('tensorflow', 'keras', 'google.protobuf', 'scipy') if name in sys.modules]"
    done = run(f"import sys, deepduel.decoding.worker; print({heavy})")
    assert done.stdout == "[]\n"


def test_a_fork_leaves_its_parents_batches_and_processes_alone(toy_shards):
    program = """
        import os, sys
        import numpy as np
        from deepduel.decoding import worker_pool
        from deepduel.decoding.batch_decoder import BatchDecoder
        from deepduel.decoding.image import DecodeOptions
        from deepduel.decoding.split import Split
        pool = worker_pool.spent(2, worker_pool.STARTS_AFTER)
        pool.ready.wait(60)
        decode = BatchDecoder(Split(sys.argv[1], "train"), DecodeOptions((32, 32)), threads=2)
        kept = decode(np.arange(100))
        expected = kept.copy()
        decode(np.arange(100))  # a buffer that is free
        child = os.fork()
        if not child:
            assert worker_pool.shared(2) is None
            assert (decode(np.arange(100)) == expected).all()
            decode(np.arange(50, 150))
            del kept, decode  # gives no memory of the parent's back
            sys.exit(0)
        for _ in range(20):
            assert (decode(np.arange(100)) == expected).all()
        assert os.waitpid(child, 0)[1] == 0
        assert (kept == expected).all() and (decode(np.arange(100)) == expected).all()
        print("well")
    """
    done = run(program, toy_shards)
    assert done.stdout == "well\n", done.stderr[-2000:]


def test_a_small_data_set_starts_no_process(toy_shards):
    program = """
        import sys
        import numpy as np
        from deepduel.decoding import worker_pool
        from deepduel.decoding.batch_decoder import BatchDecoder
        from deepduel.decoding.image import DecodeOptions
        from deepduel.decoding.split import Split
        decode = BatchDecoder(Split(sys.argv[1], "train"), DecodeOptions((32, 32)))
        decode(np.arange(168))
        print(dict(worker_pool._pools))
    """
    assert run(program, toy_shards).stdout == "{}\n"


@pytest.mark.parametrize(
    "program, reason",
    [
        ("/nonexistent/python", "no worker process can be started (No such file or directory)"),
        ("/bin/false", "the worker processes did not start: the first ended with code 1"),
    ],
)
def test_where_no_process_starts_it_is_said_and_this_one_decodes(
    toy_shards, monkeypatch, capfd, program, reason
):
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: program)
    pool = worker_pool.spent(3, worker_pool.STARTS_AFTER)
    assert pool is None or pool._group.over.wait(30)
    decode = BatchDecoder(Split(toy_shards, "train"), DecodeOptions((32, 32)), threads=3)
    assert decode(np.arange(168)).any(axis=(1, 2, 3)).all()
    assert worker_pool.spent(3, worker_pool.STARTS_AFTER) is None  # is not tried again
    assert capfd.readouterr().err == f"decoding in this process alone, which is slower: {reason}\n"


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_workers_decode_shards_of_an_object_store_alike(toy_shards, pool, cache):
    local, remote = Split(toy_shards, "train"), Split(upload(toy_shards), "train")
    remote.keep_remote(cache)
    records = np.random.default_rng(1).permutation(len(local))[:48]
    expected = BatchDecoder(local, TOY, threads=ALONE)(records)
    np.testing.assert_array_equal(BatchDecoder(remote, TOY, threads=POOLED)(records), expected)


def test_workers_decode_shards_that_are_kept_in_part(toy_shards, pool, tmp_path):
    local, remote = Split(toy_shards, "train"), Split(upload(toy_shards), "train")
    remote.keep_remote(f"{tmp_path}:{local.shards[0].bytes}")
    assert remote.remote.kept == 1
    records = np.arange(len(local))
    np.testing.assert_array_equal(
        BatchDecoder(remote, TOY, threads=POOLED)(records), BatchDecoder(local, TOY, threads=ALONE)(records)
    )
