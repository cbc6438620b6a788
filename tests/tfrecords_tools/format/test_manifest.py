import dataclasses
import json
import os
import re

import pytest

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest

SHARD = manifest.Shard("data-train.tfrecord-00000-of-00001", 2, 50, {"": "0", ".idx": "1", ".npy": "2"})
WHOLE = manifest.Manifest(
    name="data",
    axes={"authenticity": ("real", "fake"), "category": ("cats", "dögs 猫")},
    splits={"train": manifest.Split((SHARD,), {"real/cats": 2})},
    image_sizes={"8x8": 2},
    encodings={"jpeg": 2},
    rejected=0,
    options={"seed": 0, "layout": "{authenticity}/{category}"},
    source="abc",
    generations=({"source": "abc", "images": 2, "shards": {"train": 1}},),
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / SHARD.file).write_bytes(b"12345" * 10)
    (tmp_path / "manifest.json").write_bytes(manifest.dumps(WHOLE))
    return tmp_path


def test_what_is_saved_is_loaded(folder):
    assert manifest.load(folder) == WHOLE
    assert manifest.load(str(folder)).splits["train"].records == 2
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []
    assert (WHOLE.label_name("category", 1), WHOLE.label_name("category", -1)) == ("dögs 猫", "?")


def change(folder, **values):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values))


@pytest.mark.parametrize(
    ("hurt", "message"),
    [
        (
            lambda folder: (folder / "manifest.json").unlink(),
            "no manifest.json, so this is not a finished conversion",
        ),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: unreadable"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json: not a manifest"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff{}"), "manifest.json: unreadable"),
        (lambda folder: change(folder, format_version=9), "version 9, but this version reads"),
        (lambda folder: change(folder, rejected=7), "its checksum does not fit, so it was damaged or edited"),
        (
            lambda folder: (folder / SHARD.file).unlink(),
            "missing, but the manifest lists it for split 'train'",
        ),
        (lambda folder: (folder / SHARD.file).write_bytes(b"1"), "1 bytes, but the manifest says 50"),
    ],
)
def test_damage_is_one_clear_line(folder, hurt, message):
    hurt(folder)
    with pytest.raises(DataError, match=message):
        manifest.load(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: there is no such folder of shards"):
        manifest.load(tmp_path / "nowhere")


def test_a_manifest_that_lacks_something_is_incomplete(folder):
    document = json.loads((folder / "manifest.json").read_text("utf-8"))
    del document["axes"]
    document["checksum"] = manifest._checksum(document)
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="incomplete"):
        manifest.load(folder)


def test_two_classes_of_one_name_are_malformed(folder):
    rewritten(folder, lambda document: document["axes"].update(category=["a", "b", "a"]))
    with pytest.raises(DataError, match="two classes of category have one name"):
        manifest.load(folder)


def test_the_same_manifest_is_the_same_bytes():
    assert manifest.dumps(WHOLE) == manifest.dumps(dataclasses.replace(WHOLE))


def rewritten(folder, change) -> None:
    """Changes the document of a manifest, as an attacker would: its checksum fits again."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    document["checksum"] = manifest._checksum(document)
    path.write_text(json.dumps(document))


UP = "../../up"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda whole: whole["axes"].update({"..": ["a"]}), "matching regex .* at `key` in `$.axes`"),
        (lambda whole: whole["axes"].update({"/tmp/a": ["a"]}), "at `key` in `$.axes`"),
        (lambda whole: whole["axes"].update(category="cats"), "Expected `array`, got `str`"),
        (lambda whole: whole["splits"].update({UP: whole["splits"]["train"]}), "at `key` in `$.splits`"),
        (lambda whole: whole["splits"]["train"]["shards"][0].update(file=UP), "shards[0].file`"),
        (lambda whole: whole["splits"]["train"]["shards"][0].update(file=".hidden"), "shards[0].file`"),
        (lambda whole: whole["splits"]["train"]["shards"][0].update(records=-1), "shards[0].records`"),
        (lambda whole: whole["splits"]["train"]["shards"][0].update(bytes=1 << 63), "shards[0].bytes`"),
        (lambda whole: whole["splits"]["train"]["shards"][0].update(sha256={"": "0"}), "the SHA-256 sums of"),
        (lambda whole: whole.update(name="a/b"), "`$.name`"),
        (
            lambda whole: whole.update(name=".*"),
            "`$.name`",
        ),  # part of a pattern of names to remove
        (lambda whole: whole.update(files={UP: "0"}), "at `key` in `$.files`"),
        (lambda whole: whole.update(options={"a=$(id) ": 1}), "at `key` in `$.options`"),
        (lambda whole: whole.update(options={"seed": {}}), "`$.options[...]`"),
        (lambda whole: whole.update(generations=[{}]), "missing required field"),
        (lambda whole: whole.update(generations=[{"source": "", "images": 1, "shards": {UP: 1}}]), "shards`"),
        (lambda whole: whole.update(source=UP), "`$.source`"),
    ],
)
def test_a_hostile_manifest_is_one_line(folder, change, where):
    rewritten(folder, change)
    with pytest.raises(DataError, match="manifest.json: incomplete") as raised:
        manifest.load(folder)
    assert re.search(re.escape(where).replace(r"\.\*", ".*"), str(raised.value))
    assert "\n" not in str(raised.value)


def test_a_shard_that_is_a_named_pipe_is_missing(folder):
    (folder / SHARD.file).unlink()
    os.mkfifo(folder / SHARD.file)
    rewritten(folder, lambda whole: whole["splits"]["train"]["shards"][0].update(bytes=0))
    with pytest.raises(DataError, match="missing, but the manifest lists it"):
        manifest.load(folder)


def test_a_manifest_that_is_a_named_pipe_is_refused(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(DataError, match="manifest.json: unreadable .*not a regular file"):
        manifest.load(folder)


def test_a_shard_cannot_hold_more_records_than_its_bytes(folder):
    rewritten(folder, lambda whole: whole["splits"]["train"]["shards"][0].update(records=2**40))
    with pytest.raises(DataError, match="50 bytes cannot hold the 1,099,511,627,776 records"):
        manifest.load(folder)
