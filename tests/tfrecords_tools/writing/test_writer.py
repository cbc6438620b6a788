"""Shards written elsewhere: into object stores, and by Apache Beam."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import uuid

import pytest

from tests.conftest import run_command
from tests.helpers import folders
from tfrecords_tools import convert, inspect, verify
from tfrecords_tools.format import manifest, storage


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folders.duel(tmp_path_factory.mktemp("writer") / "images")


@pytest.fixture(scope="module")
def shards(images):
    """What the local run makes of the images."""
    output = images.parent / "shards"
    words = f"--input_dir={images}", f"--output_dir={output}", "--workers=1", "--num_shards=4"
    assert run_command(convert, *words) == 0
    return output


@pytest.fixture(scope="module")
def bucket():
    """A bucket of a real object-store server on this machine."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    before = dict(os.environ)
    os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                   "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    import s3fs

    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    running.stop()
    os.environ.clear()
    os.environ.update(before)


def upload(folder: pathlib.Path, url: str) -> None:
    store = storage.open_folder(url)
    for path in folder.rglob("*.jpg"):
        store.write(path.relative_to(folder).as_posix(), path.read_bytes())


@pytest.mark.slow
def test_from_bucket_to_bucket_gives_the_same_bytes(images, shards, bucket, capsys, tmp_path):
    upload(images, f"{bucket}/in/images")
    words = f"--input_dir={bucket}/in/images", f"--output_dir={bucket}/out", "--num_shards=4"
    assert run_command(convert, *words, "--workers=2") == 0
    store = storage.open_folder(f"{bucket}/out")
    expected = {path.name: path.read_bytes() for path in shards.iterdir()}
    assert set(store.names()) == set(expected)
    for name, data in expected.items():
        assert store.read(name) == data, name

    assert run_command(convert, *words, "--workers=1") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run_command(verify, f"--data_dir={bucket}/out", "--workers=1", "--decode") == 0
    assert run_command(inspect, f"--data_dir={bucket}/out", f"--sheet_dir={tmp_path}", "--per_sheet=1") == 0

    name = manifest.load(shards).splits["train"].shards[1].file
    store.write(name, expected[name][:-3] + b"!!!")
    assert run_command(verify, f"--data_dir={bucket}/out", "--workers=1") == 1
    assert name in capsys.readouterr().out
    assert run_command(convert, *words, "--workers=1", "--repair") == 0
    assert store.read(name) == expected[name]


def test_an_interrupted_conversion_into_a_bucket_goes_on(images, shards, bucket, capsys, monkeypatch):
    from tfrecords_tools.writing import shard

    plain, calls = shard.write, []

    def interrupted(common, job, counts):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(job.file)
        plain(common, job, counts)

    words = f"--input_dir={images}", f"--output_dir={bucket}/half", "--num_shards=4", "--workers=1"
    monkeypatch.setattr(shard, "write", interrupted)
    assert run_command(convert, *words) == 130
    monkeypatch.undo()
    assert run_command(verify, f"--data_dir={bucket}/half") == 1
    assert run_command(convert, *words) == 0
    assert "resuming after 5 finished shards" in capsys.readouterr().out
    store = storage.open_folder(f"{bucket}/half")
    assert {name: store.read(name) for name in store.names()} == {
        path.name: path.read_bytes() for path in shards.iterdir()
    }


def test_a_bucket_refuses_a_second_object_of_one_name(bucket, monkeypatch):
    store = storage.open_folder(f"{bucket}/once")
    monkeypatch.setattr(store, "size", lambda name: None)  # whoever looks first sees nothing
    store.create("a", b"first")
    store.create("a", b"second")
    assert store.read("a") == b"first"


def test_a_missing_bucket_and_an_unknown_scheme_are_one_clear_line(images, bucket, tmp_path, capsys):
    assert run_command(convert, "--input_dir=s3://no-such-bucket-here/x", f"--output_dir={tmp_path}/o") == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert run_command(convert, "--input_dir=zz://x/y", f"--output_dir={tmp_path}/o") == 1
    error = capsys.readouterr().err
    assert "zz://x/y: Protocol not known: zz" in error and "Traceback" not in error


BEAM = os.environ.get("DEEPDUEL_BEAM_PYTHON", sys.executable)


def beam_is_there() -> bool:
    if sys.executable == BEAM:
        return importlib.util.find_spec("apache_beam") is not None
    return True


@pytest.mark.skipif(
    not beam_is_there(), reason="apache_beam is not installed (DEEPDUEL_BEAM_PYTHON can name one)"
)
@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_beam_writes_the_same_bytes_with_several_workers(images, shards, tmp_path, mode):
    options = f"--runner=DirectRunner --direct_num_workers=2 --direct_running_mode={mode}"
    done = subprocess.run(
        [BEAM, "-m", "tfrecords_tools.convert", f"--input_dir={images}", f"--output_dir={tmp_path}/out",
         "--num_shards=4", "--runner=beam", f"--beam_options={options}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert folders.sums(tmp_path / "out") == folders.sums(shards)


def test_beam_that_is_not_there_is_one_clear_line(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    words = f"--input_dir={images}", f"--output_dir={tmp_path}/out", "--runner=beam"
    assert run_command(convert, *words) == 1
    assert "pip install 'deepduel[beam]'" in capsys.readouterr().err


def test_beam_options_without_beam_are_wrong_usage(capsys):
    assert run_command(convert, "--input_dir=x", "--output_dir=y", "--beam_options=--runner=x") == 2
    assert "--beam_options needs --runner=beam" in capsys.readouterr().err
