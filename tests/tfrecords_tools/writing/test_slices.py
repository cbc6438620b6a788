"""Conversions in slices: the bytes of one machine, whatever is killed, repeated or given other images."""

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import run_command
from tests.helpers import folders
from tfrecords_tools import convert, planning
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest, storage
from tfrecords_tools.writing import ownership
from tfrecords_tools.writing.slices import Slice


@pytest.fixture
def words(toy_folder, tmp_path):
    return f"--input_dir={toy_folder}", f"--output_dir={tmp_path}/out", "--num_shards=3", "--workers=1"


def assert_complete(tmp_path, toy_shards):
    assert folders.sums(tmp_path / "out") == folders.sums(toy_shards)
    assert not (tmp_path / "out" / ".convert").exists()


def test_slices_and_the_plain_command_write_the_bytes_of_one_machine(words, tmp_path, toy_shards, capsys):
    for part in ("2/3", "0/3", "1/3"):
        assert run_command(convert, *words, f"--slice={part}") == 0
        assert not (tmp_path / "out" / "manifest.json").exists()
    printed = capsys.readouterr().out
    assert "slice 0/3: 3 shards written, 0 were there already" in printed
    assert "run the same command without --slice, which completes" in printed
    assert run_command(convert, *words) == 0
    assert "resuming after 9 finished shards" in capsys.readouterr().out
    assert_complete(tmp_path, toy_shards)
    assert run_command(convert, *words, "--slice=0/3") == 0
    assert "is complete already" in capsys.readouterr().out


def test_the_plain_command_fills_the_gaps_of_slices_that_never_ran(words, tmp_path, toy_shards):
    assert run_command(convert, *words, "--slice=1/4") == 0
    assert run_command(convert, *words) == 0
    assert_complete(tmp_path, toy_shards)


def test_a_slice_that_was_done_does_nothing_a_second_time(words, capsys):
    assert run_command(convert, *words, "--slice=0/2") == 0
    assert run_command(convert, *words, "--slice=0/2") == 0
    assert "slice 0/2: 0 shards written, 5 were there already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_slice_that_is_killed_and_two_equal_slices_at_once_cost_nothing(words, tmp_path, toy_shards):
    command = [sys.executable, "-m", "tfrecords_tools.convert", *words]
    killed = subprocess.Popen([*command, "--slice=0/2"], stdout=subprocess.DEVNULL)
    while killed.poll() is None and not list((tmp_path / "out").glob(".convert/*.partial")):
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    parts = ["0/2", "0/2", "1/2"]
    running = [subprocess.Popen([*command, f"--slice={part}"], stdout=subprocess.DEVNULL) for part in parts]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert run_command(convert, *words) == 0
    assert_complete(tmp_path, toy_shards)


def test_a_slice_that_the_plain_command_overtakes_finds_all_complete(
    words, tmp_path, toy_shards, capsys, monkeypatch
):
    """The plain command removes the folder in which the slice has an unfinished shard."""
    publish = storage.Local.publish

    def overtaken(folder, file, name):
        monkeypatch.setattr(storage.Local, "publish", publish)
        command = [sys.executable, "-m", "tfrecords_tools.convert", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        publish(folder, file, name)

    monkeypatch.setattr(storage.Local, "publish", overtaken)
    assert run_command(convert, *words, "--slice=0/2") == 0
    assert "is complete already" in capsys.readouterr().out
    assert_complete(tmp_path, toy_shards)


def test_a_machine_that_lists_other_images_is_refused(words, toy_folder, tmp_path, capsys):
    assert run_command(convert, *words, "--slice=0/2") == 0
    other = shutil.copytree(toy_folder, tmp_path / "images")
    next((other / "train" / "real" / "animals").iterdir()).unlink()
    lines = (other / "metadata.csv").read_text().splitlines(keepends=True)
    present = [
        line for line in lines if "," not in line or (other / line.split(",")[0]).exists() or line == lines[0]
    ]
    (other / "metadata.csv").write_text("".join(present))
    assert run_command(convert, f"--input_dir={other}", *words[1:], "--slice=1/2") == 1
    error = capsys.readouterr().err
    assert "the input's files, sizes or labels (240 images then, 239 now)" in error
    assert f"or delete {tmp_path}/out, which holds the unfinished one\n" in error


@pytest.mark.parametrize("place", ["{tmp_path}/out", "memory://bucket/{tmp_path.name}"])
def test_of_two_plans_that_find_a_new_folder_at_once_one_is_refused(toy_folder, tmp_path, place):
    ours, theirs = (
        planning.plan(input_dir=toy_folder, output_dir=tmp_path / str(seed), seed=seed).shards
        for seed in range(2)
    )
    target = storage.open_folder(place.format(tmp_path=tmp_path))
    for plan in ours, theirs:
        ownership.require_ours(target, plan)
    ownership.claim(target, ours)
    with pytest.raises(DataError, match=r"differs in seed \(0 there, 1 now\)"):
        ownership.claim(target, theirs)
    ownership.claim(target, ours)
    assert json.loads(target.read(ownership.PLAN_FILE)) == ours.description


def test_shards_of_another_plan_are_written_again(words, toy_folder, tmp_path, toy_shards):
    """Two machines with different images began at once, in a place where the last plan.json wins."""
    assert run_command(convert, *words, "--slice=0/1", "--seed=1") == 0
    ours = planning.plan(input_dir=toy_folder, output_dir=tmp_path / "else", num_shards=3)
    (tmp_path / "out" / ".convert" / "plan.json").write_bytes(
        (tmp_path / "else" / ".convert" / "plan.json").read_bytes()
    )
    assert len(ours.jobs()) == 9
    assert run_command(convert, *words, "--name=images") == 0
    assert_complete(tmp_path, toy_shards)


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "0/0", "1/2/3"])
def test_a_slice_that_is_none_is_refused(text, words, capsys):
    with pytest.raises(UsageError):
        Slice.parse(text)
    assert run_command(convert, *words, f"--slice={text}") == 2
    assert "--slice must be I/N" in capsys.readouterr().err


def test_a_plans_jobs_are_written_anywhere_and_finished_here(toy_folder, toy_shards, tmp_path):
    options = {"input_dir": toy_folder, "output_dir": tmp_path / "out", "num_shards": 3}
    conversion = planning.plan(**options)
    jobs, write = pickle.loads(pickle.dumps((conversion.jobs(), conversion.write)))
    assert len(jobs) == 9
    assert write(jobs[0]) == jobs[0].file
    assert len(pickle.dumps(write)) < 2000  # it does not carry the listing of all images
    assert len(planning.plan(**options).jobs()) == 8
    assert conversion.finish() == manifest.load(toy_shards)
    assert_complete(tmp_path, toy_shards)
    assert planning.plan(**options).jobs() == []


def test_options_of_a_plan_are_checked(toy_folder, tmp_path):
    with pytest.raises(UsageError, match="no_such"):
        planning.plan(input_dir=toy_folder, output_dir=tmp_path / "out", no_such=1)
    with pytest.raises(UsageError, match="workers is an option of the command only"):
        planning.plan(input_dir=toy_folder, output_dir=tmp_path / "out", workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DataError, match="is not empty"):
        planning.plan(input_dir=toy_folder, output_dir=tmp_path / "full")


@pytest.mark.parametrize("engine", ["dask", "ray", "pyspark"])
def test_engines_write_the_jobs(engine, toy_folder, toy_shards, tmp_path, monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    module = pytest.importorskip(engine, reason=f"{engine} is not installed")
    conversion = planning.plan(input_dir=toy_folder, output_dir=tmp_path / "out", num_shards=3)
    if engine == "dask":
        writes = [module.delayed(conversion.write)(job) for job in conversion.jobs()]
        module.compute(*writes, scheduler="processes")
    elif engine == "ray":
        module.init(num_cpus=2, include_dashboard=False)
        write = module.remote(lambda job, write=conversion.write: write(job))
        module.get([write.remote(job) for job in conversion.jobs()])
        module.shutdown()
    else:
        jobs = conversion.jobs()
        context = module.SparkContext("local[2]")
        context.parallelize(jobs, len(jobs)).foreach(conversion.write)
        context.stop()
    assert conversion.jobs() == []
    conversion.finish()
    assert_complete(tmp_path, toy_shards)
