import json
import shutil
import subprocess
import sys

import pytest
import simplejpeg

from deepduel.decoding.split import Split
from tests.conftest import run_command
from tfrecords_tools import convert
from tfrecords_tools.errors import DataError, UsageError


@pytest.fixture
def copy(toy_shards, tmp_path):
    return shutil.copytree(toy_shards, tmp_path / "shards")


def test_records_are_the_files_byte_for_byte(toy_shards, toy_folder):
    split = Split(toy_shards, "train")
    assert len(split) == 168
    for record in (0, 1, 100, 167):
        assert bytes(split.image(record)) == (toy_folder / split.key(record).decode()).read_bytes()


def test_labels_are_those_of_the_folders(toy_shards):
    split = Split(toy_shards, "validation")
    for record in range(len(split)):
        _, authenticity, category, _ = split.key(record).decode().split("/")
        assert split.labels["authenticity"][record] == ["real", "fake"].index(authenticity)
        assert split.labels["category"][record] == ["animals", "human_faces", "vehicles"].index(category)


def test_a_split_without_labels_has_minus_one(toy_shards):
    split = Split(toy_shards, "test")
    assert (split.labels["authenticity"] == -1).all()
    assert (split.labels["category"] == -1).all()


def test_sizes_are_known_without_decoding(toy_shards):
    split = Split(toy_shards, "train")
    assert split.one_size == (32, 32)
    assert simplejpeg.decode_jpeg_header(split.image(3))[:2] == (32, 32)


def test_where_names_shard_number_and_key(toy_shards):
    split = Split(toy_shards, "train")
    first = split.shards[0].records
    assert f"{split.shards[1].file}, record 2 (key train/" in split.where(first + 2)


def test_an_unknown_split_names_the_known(toy_shards):
    with pytest.raises(
        UsageError, match="no split 'extra'; it has test, train, validation: name one of these"
    ):
        Split(toy_shards, "extra")


def test_the_only_split_of_a_role_is_known_by_any_name_of_the_role(toy_shards):
    assert Split(toy_shards, "dev").name == "validation"


def test_a_folder_without_manifest(tmp_path):
    with pytest.raises(DataError, match="no manifest.json, so this is not a finished conversion"):
        Split(tmp_path, "train")
    with pytest.raises(DataError, match="no such folder"):
        Split(tmp_path / "nowhere", "train")


def test_a_missing_shard_is_named(copy):
    shard = next(copy.glob("*-train.*-00001-of-00003"))
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard.name}: missing"):
        Split(copy, "train")


def test_a_shortened_shard_is_named(copy):
    shard = next(copy.glob("*-train.*-00001-of-00003"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{shard.name}: .* the manifest says"):
        Split(copy, "train")


def test_a_table_that_is_damaged_or_of_another_shard(copy):
    one, two = (next(copy.glob(f"*-train.*-0000{number}-of-00003.npy")) for number in (0, 1))
    kept = one.read_bytes()
    one.write_bytes(kept[:50])
    with pytest.raises(DataError, match=f"{one.name}: unreadable"):
        Split(copy, "train")
    shard = next(copy.glob("*-validation.*-00000-of-00003.npy"))
    one.write_bytes(shard.read_bytes())
    with pytest.raises(DataError, match="does not belong to its shard"):
        Split(copy, "train")
    assert two.exists()


def test_a_manifest_of_another_version(copy):
    path = copy / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"format_version": 99}))
    with pytest.raises(DataError, match="version 99, but this version reads"):
        Split(copy, "train")


LIMITED = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (80, int(sys.argv[2])))
from deepduel.decoding import open_files, split as shards
open_files._SPARE_FILES = 16
split = shards.Split(sys.argv[1], "train")
keys = [split.key(record).decode() for record in range(len(split))]
assert len(set(keys)) == len(split)
assert [len(image) for image in split.images(np.arange(len(split)))] == split._image_size.tolist()
print(len(split.shards), len(split._files), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize("hard", [90, 4096])
def test_more_shards_than_a_process_may_open_files(toy_folder, tmp_path, hard):
    """The limit is raised where it may be; where not, what is over it is opened for each read."""
    words = f"--input_dir={toy_folder}", f"--output_dir={tmp_path}/shards", "--num_shards=120", "--workers=1"
    assert run_command(convert, *words) == 0
    command = [sys.executable, "-c", LIMITED, f"{tmp_path}/shards", str(hard)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count, opened, limit = map(int, done.stdout.split())
    assert count == 120
    assert limit == 90 if hard == 90 else limit >= 136
    assert opened < 80 if hard == 90 else opened == 120


def test_a_folder_in_an_object_store(toy_shards):
    import fsspec

    store = fsspec.filesystem("memory")
    for path in toy_shards.iterdir():
        if path.is_file():
            store.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    local, remote = Split(toy_shards, "train"), Split("memory://bucket/shards", "train")
    assert remote.path(1) == f"memory://bucket/shards/{local.shards[1].file}"
    for record in (0, 100, 167):
        assert remote.image(record) == local.image(record)
        assert remote.key(record) == local.key(record)
    assert (remote.labels["category"] == local.labels["category"]).all()
