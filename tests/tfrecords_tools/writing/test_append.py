"""Conversions into a folder that has shards already."""

import dataclasses

from tests.conftest import run_command
from tests.helpers import folders, odd_images
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools import verify
from tfrecords_tools.format import manifest
from tfrecords_tools.writing import conversion_options


def test_append_writes_further_shards_and_leaves_the_old_ones(tmp_path, capsys):
    root = folders.duel(tmp_path / "images")
    output = tmp_path / "out"
    assert convert_to(output, root, "--num_shards=2") == 0
    old = {name: value for name, value in folders.sums(output).items() if "tfrecord" in name}
    times = {name: (output / name).stat().st_mtime_ns for name in old}
    assert convert_to(output, root, "--num_shards=2", "--append") == 0
    assert "nothing to append" in capsys.readouterr().out

    for number in range(3):
        (root / f"train/real/cats/new{number}.jpg").write_bytes(
            odd_images.save(odd_images.picture(seed=99 + number), "JPEG")
        )
    assert convert_to(output, root, "--num_shards=2", "--append") == 0
    assert ", 3 of them by this run, in " in capsys.readouterr().out
    assert {name: folders.sums(output)[name] for name in old} == old
    assert {name: (output / name).stat().st_mtime_ns for name in old} == times
    assert set(stored(output)) == {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}
    whole = manifest.load(output)
    assert len(whole.generations) == 2 and whole.splits["train"].cells["real/cats"] == 7
    assert [part.file for part in whole.splits["train"].shards] == [
        f"images-train.tfrecord-0000{index}-of-0000{count}"
        for index, count in ((0, 2), (1, 2), (2, 4), (3, 4))
    ]
    assert run_command(verify, f"--data_dir={output}", "--decode", "--workers=1") == 0

    (root / "train/fake/dogs/newest.jpg").write_bytes(odd_images.kept()["baseline.jpg"])
    assert convert_to(output, root, "--num_shards=2", "--append") == 0
    assert len(stored(output)) == 40
    assert run_command(verify, f"--data_dir={output}", "--workers=1") == 0
    assert "not in the manifest" not in capsys.readouterr().out

    for name in list(folders.sums(output)):
        if name == "manifest.json" or name.startswith("images-0000"):
            continue
        expected = (output / name).read_bytes()
        (output / name).write_bytes(expected[:-1] + bytes([expected[-1] ^ 1]))
        assert convert_to(output, root, "--num_shards=2", "--repair") == 0, name
        assert (output / name).read_bytes() == expected


def test_append_refuses_unknown_classes_and_other_options(tmp_path, capsys):
    root = folders.duel(tmp_path / "images", each=1)
    assert convert_to(tmp_path / "out", root) == 0
    more = folders.make(tmp_path / "more", {"train/real/birds": 1})
    before = folders.sums(tmp_path / "out")
    assert convert_to(tmp_path / "out", more, "--append", "--name=images") == 1
    assert "category 'birds' is not among the labels of the folder to append to" in capsys.readouterr().err
    more = folders.make(tmp_path / "some", {"train/real/dogs/deeper": 2})
    assert convert_to(tmp_path / "out", more, "--append", "--name=images", "--seed=3") == 1
    assert "differs in seed (0 there, 3 now)" in capsys.readouterr().err
    assert folders.sums(tmp_path / "out") == before
    assert convert_to(tmp_path / "out", more, "--append", "--name=images") == 0
    assert manifest.load(tmp_path / "out").splits["train"].cells["real/dogs"] == 3


def test_a_folder_of_an_older_version_stays_as_it_was_and_goes_on_as_it_began(tmp_path, capsys, monkeypatch):
    """Up to plan version 2 turned photographs became PNGs, whose bytes repair must find again."""
    turned, _ = odd_images.turned()["turned6_32x48_2.jpg"]
    images, output = folders.make(tmp_path / "images", {"a": 1, "b": 1}), tmp_path / "out"
    (images / "a" / "turned.jpg").write_bytes(turned)
    options = conversion_options.options

    def as_in_version_1(flag_values):
        chosen = options(flag_values)
        encoding = dataclasses.replace(chosen.encoding, turned="png")
        return dataclasses.replace(chosen, plan_version=1, encoding=encoding)

    with monkeypatch.context() as older:
        older.setattr(conversion_options, "options", as_in_version_1)
        assert convert_to(output, images) == 0
    before = folders.sums(output)
    assert manifest.load(output).encodings == {"jpeg": 2, "png": 1}
    assert convert_to(output, images) == 0
    assert "nothing to do" in capsys.readouterr().out and folders.sums(output) == before
    shard = next(output.glob("*-of-00001"))
    shard.write_bytes(bytes(100))
    assert convert_to(output, images, "--repair") == 0 and folders.sums(output) == before
    (images / "a" / "second.jpg").write_bytes(turned)
    assert convert_to(output, images, "--append") == 0
    assert manifest.load(output).encodings == {"jpeg": 2, "png": 2}
    assert convert_to(tmp_path / "new", images) == 0
    assert manifest.load(tmp_path / "new").encodings == {"jpeg": 4}
