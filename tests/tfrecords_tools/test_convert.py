import io
import json
import os
import re

import numpy as np
import pytest

from tests.conftest import run_command
from tests.helpers import folders, odd_images
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools import convert, progress, verify
from tfrecords_tools.checking import contact_sheets
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest, records
from tfrecords_tools.format.folder import DamagedMember
from tfrecords_tools.format.manifest import shard_name
from tfrecords_tools.images import encoding_options
from tfrecords_tools.listing import folder
from tfrecords_tools.writing import planning, shard


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folders.duel(tmp_path_factory.mktemp("convert") / "images")


@pytest.fixture(scope="module")
def shards(images):
    output = images.parent / "shards"
    assert convert_to(output, images, "--num_shards=3") == 0
    return output


def test_every_image_is_stored_once_with_its_labels_and_bytes(images, shards):
    stored_images = stored(shards)
    assert len(stored_images) == 36
    for key, (split, labels, encoded) in stored_images.items():
        assert encoded == (images / key).read_bytes()
        parts = key.split("/")
        assert split == parts[0]
        if split == "test":
            assert labels == {"authenticity": -1, "category": -1}
        else:
            assert labels == {"authenticity": int(parts[1] == "fake"), "category": int(parts[2] == "dogs")}


def test_the_folder_holds_what_is_documented(shards):
    names = {path.name for path in shards.iterdir()}
    wanted = {
        f"images-{split}.tfrecord-{index:05d}-of-00003{ending}"
        for split in ("train", "validation", "test") for index in range(3) for ending in ("", ".idx", ".npy")
    }  # fmt: skip
    others = {"manifest.json", "rejected.csv", "skipped.csv", "images-00001.npy", "dataset_info.json",
              "features.json", "authenticity.labels.txt", "category.labels.txt"}  # fmt: skip
    assert names == wanted | others
    whole = manifest.load(shards)
    assert whole.axes == {"authenticity": ("real", "fake"), "category": ("cats", "dogs")}
    assert whole.splits["test"].cells == {"?/?": 4}
    assert whole.splits["train"].cells == {f"{a}/{c}": 4 for a in ("fake", "real") for c in ("cats", "dogs")}
    assert (whole.image_sizes, whole.encodings, whole.rejected) == ({"24x24": 36}, {"jpeg": 36}, 0)
    assert (shards / "rejected.csv").read_text() == "key,reason\n"


def test_index_and_table_address_each_record(shards):
    for split, of_split in manifest.load(shards).splits.items():
        for file, table in contact_sheets.tables(manifest.load(shards), str(shards), split):
            data = (shards / file).read_bytes()
            index = [
                tuple(map(int, line.split())) for line in (shards / f"{file}.idx").read_text().splitlines()
            ]
            assert index == list(zip(table["offset"].tolist(), table["size"].tolist(), strict=True))
            assert sum(table["size"]) == len(data)
            for row, payload in zip(table, records.read_payloads(data), strict=True):
                encoded, _, labels = records.parse(payload)
                start = row["image_offset"]
                assert data[start : start + row["image_size"]] == encoded
                assert row["labels"].tolist() == [labels[axis] for axis in ("authenticity", "category")]
                assert (row["height"], row["width"], row["encoding"]) == (24, 24, 0)
        assert of_split.records == sum(part.records for part in of_split.shards)


def test_bytes_do_not_depend_on_workers_times_or_places(images, shards, tmp_path):
    code = run_command(
        convert, f"--input_dir={images}/", f"--output_dir={tmp_path}/other", "--workers=3", "--num_shards=3"
    )
    assert code == 0
    assert folders.sums(tmp_path / "other") == folders.sums(shards)


def test_the_seed_decides_the_order(images, shards, tmp_path):
    assert convert_to(tmp_path / "seed", images, "--num_shards=3", "--seed=1") == 0
    assert stored(tmp_path / "seed") == stored(shards)
    assert list(stored(tmp_path / "seed")) != list(stored(shards))


def test_a_second_run_has_nothing_to_do_and_touches_nothing(images, shards, capsys):
    before = {path: path.stat().st_mtime_ns for path in shards.iterdir()}
    assert convert_to(shards, images, "--num_shards=3") == 0
    assert "already holds exactly this conversion" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in shards.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_shards=2"], r"differs in num_shards \(3 there, 2 now\)"),
        (["--num_shards=3", "--seed=7"], r"differs in seed \(0 there, 7 now\)"),
        (["--num_shards=3", "--encoding=png"], r'differs in encoding \("keep" there, "png" now\)'),
        (["--num_shards=3", "--name=cats"], r'differs in name \("images" there, "cats" now\)'),
    ],
)
def test_other_options_over_a_finished_folder_say_what_differs(images, shards, capsys, words, message):
    before = folders.sums(shards)
    assert convert_to(shards, images, *words) == 1
    assert re.search(message, capsys.readouterr().err)
    assert folders.sums(shards) == before


def test_other_input_over_a_finished_folder_says_so(shards, tmp_path, capsys):
    other = folders.duel(tmp_path / "images", each=3)
    assert convert_to(shards, other, "--num_shards=3") == 1
    assert "the input's files, sizes or labels (36 images then, 27 now)" in capsys.readouterr().err


def test_a_folder_with_other_things_in_it_is_left_alone(images, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert convert_to(tmp_path, images) == 1
    assert "is not empty (it holds 'thesis.tex')" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--input_dir is missing; set it to a folder of images"),
        (["--input_dir=x"], "--output_dir is missing; set it to a folder for the shards"),
        (["--input_dir=x", "--output_dir=x/y"], "--output_dir must lie outside --input_dir"),
        (["--input_dir=x", "--output_dir=y", "--workers=-1"], "--workers must be 1 to 1024"),
        (["--input_dir=x", "--output_dir=y", "--max_rejected=2"], "--max_rejected must be a share"),
        (["--input_dir=x", "--output_dir=y", "--quality=80"], "has no effect without --encoding=jpeg"),
        (["--input_dir=x", "--output_dir=y", "--fit=pad"], "--fit has no effect without --image_size"),
        (["--input_dir=x", "--output_dir=y", "--encoding=gif"], "value should be one of"),
        (["--input_dir=x", "--output_dir=y", "--shard_mb=0"], "--shard_mb must be 1 to"),
        (["--input_dir=x", "--output_dir=y", "--name=a-b"], "--name must be letters, digits and _"),
        (["--input_dir=x", "--output_dir=y", "--image_size=64"], "--encoding=keep stores the original"),
        (["--input_dir=x", "--output_dir=y", "--repair", "--append"], "--repair cannot be combined"),
        (["--inputdir=x"], "Unknown command line flag"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(capsys, words, message):
    assert run_command(convert, *words) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_missing_folder_is_exit_code_1(tmp_path, capsys):
    assert convert_to(tmp_path / "out", tmp_path / "nowhere") == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_exit_code_1(images, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert convert_to(tmp_path / "file" / "out", images) == 1
    error = capsys.readouterr().err
    assert "Not a directory" in error and "Traceback" not in error


def test_a_dry_run_prints_the_plan_and_writes_nothing(images, tmp_path, capsys):
    assert convert_to(tmp_path / "out", images, "--dry_run", "--num_shards=3") == 0
    out = capsys.readouterr().out
    assert "train: 16 images, 3 shards" in out and "fake/dogs: 4" in out and "0 real, 1 fake" in out
    assert not (tmp_path / "out").exists()


def test_progress_tells_images_and_megabytes_a_second_time_left_and_rejected(
    images, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert convert_to(tmp_path / "out", images) == 0
    error = capsys.readouterr().err
    assert re.search(r"converting: \d+ of 36 images, [\d,.]+/s, \d+ s left, [\d,.]+ MB/s, 0 rejected", error)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Every odd image there is, among 60 plain ones."""
    root = folders.make(tmp_path_factory.mktemp("odd") / "odd", {"a": 30, "b": 30})
    corpus = odd_images.kept() | {
        k: v[0] for k, v in (odd_images.reencoded() | odd_images.turned() | odd_images.rejected()).items()
    }
    for name, data in corpus.items():
        (root / "a" / name).write_bytes(data)
    jpeg = odd_images.kept()["baseline.jpg"]
    for name in (
        b"new\nline.jpg",
        b'com,ma "quoted".jpg',
        b"\xff\xfe not utf-8.jpg",
        "ümläut 猫.jpg".encode(),
    ):
        (root / "b" / os.fsdecode(name)).write_bytes(jpeg)
    (root / "b" / "directory.jpg").mkdir()
    (root / "b" / "broken.jpg").symlink_to("nowhere")
    (root / "b" / os.fsdecode(b"\xff,\n.jpg")).write_bytes(b"no image")
    return root


def test_the_corpus_of_odd_images_is_converted_and_accounted_for(odd, tmp_path, capsys):
    import csv

    output = tmp_path / "out"
    assert convert_to(output, odd, "--max_rejected=0.5") == 0
    assert run_command(verify, f"--data_dir={output}", "--decode", "--workers=1") == 0
    whole, stored_images = manifest.load(output), stored(output)
    with (output / "rejected.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    assert set(rows) == {f"a/{name}" for name in odd_images.rejected()} | {
        "b/directory.jpg", "b/broken.jpg", "b/\\xff,\n.jpg",
    }  # fmt: skip
    for name, (_, reason) in odd_images.rejected().items():
        assert rows[f"a/{name}"].startswith(reason)
    assert whole.rejected == len(rows)
    names = {f"a/{name}" for name in (*odd_images.kept(), *odd_images.reencoded(), *odd_images.turned())}
    assert names <= set(stored_images)
    assert {
        "b/new\nline.jpg",
        'b/com,ma "quoted".jpg',
        "b/\\xff\\xfe not utf-8.jpg",
        "b/ümläut 猫.jpg",
    } <= set(stored_images)
    assert sum(whole.reencoded.values()) == len(odd_images.reencoded() | odd_images.turned())
    assert whole.reencoded["JPEG, CMYK"] == 1
    out = capsys.readouterr().out
    assert "stored as PNG for GIF, animated, first frame: 1" in out
    assert "stored as JPEG for EXIF orientation 7, blocks turned: 1" in out


def test_too_many_rejected_is_exit_code_1_and_more_can_be_allowed_later(odd, tmp_path, capsys):
    output = tmp_path / "out"
    assert convert_to(output, odd) == 1
    error = capsys.readouterr().err
    assert "images are rejected, but --max_rejected is a share of 0.01" in error
    assert not (output / "manifest.json").exists() and (output / "rejected.csv").exists()
    assert convert_to(output, odd, "--max_rejected=1") == 0
    assert "resuming after 1 finished shard (" in capsys.readouterr().out
    assert convert_to(tmp_path / "again", odd, "--max_rejected=1") == 0
    assert folders.sums(output) == folders.sums(tmp_path / "again")


def test_a_shard_whose_images_are_all_rejected_is_whole_and_empty(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 3, "b": 3})
    for path in (root / "a").iterdir():
        path.write_bytes(folders.random_bytes(9))
    words = "--num_shards=6", "--max_rejected=0.5", "--allow_missing_classes"
    assert convert_to(tmp_path / "out", root, *words) == 0
    assert (
        sorted(part.records for part in manifest.load(tmp_path / "out").splits["train"].shards)
        == [0] * 3 + [1] * 3
    )
    assert run_command(verify, f"--data_dir={tmp_path}/out", "--workers=1") == 0


@pytest.mark.parametrize(
    ("damaged", "gone"),
    [("validation/real/dogs", "of category 'dogs' in split 'validation'"),
     ("validation/fake", "of authenticity 'fake' in split 'validation'"), ("test", "of split 'test'")],
)  # fmt: skip
def test_a_class_that_loses_every_image_of_a_split_is_an_error(tmp_path, capsys, damaged, gone):
    root = folders.duel(tmp_path / "in", each=2)
    for path in (root / damaged).rglob("*.jpg"):
        path.write_bytes(folders.random_bytes(9))
    if damaged == "validation/real/dogs":
        for path in (root / "validation/fake/dogs").iterdir():
            path.write_bytes(folders.random_bytes(9))
    assert convert_to(tmp_path / "out", root, "--max_rejected=0.5") == 1
    error = capsys.readouterr().err
    assert f"every image {gone} is rejected, see {tmp_path}/out/rejected.csv" in error
    assert "--allow_missing_classes" in error and not (tmp_path / "out" / "manifest.json").exists()
    assert damaged in (tmp_path / "out" / "rejected.csv").read_text()
    assert convert_to(tmp_path / "out", root, "--max_rejected=0.5", "--allow_missing_classes") == 0
    assert "resuming after" in capsys.readouterr().out
    assert run_command(verify, f"--data_dir={tmp_path}/out", "--workers=1") == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_rejected(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 3, "b": 3})
    (root / "a" / "0.jpg").chmod(0)
    assert convert_to(tmp_path / "out", root, "--max_rejected=0.5") == 0
    assert "a/0.jpg,unreadable: permission denied" in (tmp_path / "out" / "rejected.csv").read_text()


def test_an_unreadable_file_is_a_reason_and_a_vanished_one_an_error(tmp_path):
    class Source:
        root = "in"

        def __init__(self, error):
            self.error = error

        def read_image(self, key, size, place):
            raise self.error

    def fetch(error):
        common = shard.ShardContext(Source(error), "out", {}, encoding_options.EncodingOptions())
        return shard.fetch(common, b"a.jpg", 5, 0)

    assert fetch(PermissionError(13, "denied")).reason == "unreadable: permission denied"
    assert fetch(DamagedMember("damaged in the archive")).reason == "damaged in the archive"
    with pytest.raises(DataError, match="in/a.jpg: gone, though it was there when the folder was listed"):
        fetch(FileNotFoundError(2, "gone"))


def test_an_image_that_changes_after_listing_is_an_error(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 2, "b": 2})
    plan = planning.plan(folder.scan(str(root)), planning.Options("data"))
    (root / "a" / "0.jpg").write_bytes(b"something else")
    from tfrecords_tools.writing import writer

    with pytest.raises(DataError, match="a/0.jpg: 14 bytes, but .* when the folder was listed"):
        writer.write(plan, str(tmp_path / "out"), processes=1)


@pytest.mark.parametrize("words", [
    ["--encoding=jpeg", "--quality=80"], ["--encoding=png"], ["--encoding=raw", "--image_size=16"],
    ["--encoding=jpeg", "--image_size=16", "--fit=pad"], ["--encoding=png", "--image_size=16", "--fit=crop"],
])  # fmt: skip
def test_encodings_and_sizes(images, tmp_path, words):
    assert convert_to(tmp_path / "out", images, *words) == 0
    whole = manifest.load(tmp_path / "out")
    encoding = words[0].partition("=")[2]
    assert whole.encodings == {encoding: 36}
    side = 16 if any("image_size" in word for word in words) else 24
    assert whole.image_sizes == {f"{side}x{side}": 36}
    for split in whole.splits:
        for file, table in contact_sheets.tables(whole, str(tmp_path / "out"), split):
            for row in table:
                assert contact_sheets.pixels((tmp_path / "out" / file).read_bytes(), row).shape == (
                    side,
                    side,
                    3,
                )
    assert run_command(verify, f"--data_dir={tmp_path}/out", "--decode", "--workers=1") == 0


def test_shards_follow_shard_mb(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 8, "b": 8}, size=512, kind="PNG")
    size = sum(path.stat().st_size for path in root.rglob("*.png"))
    assert convert_to(tmp_path / "out", root, "--shard_mb=1") == 0
    parts = manifest.load(tmp_path / "out").splits["train"].shards
    assert len(parts) == -(-size // 10**6) > 1
    assert {part.file for part in parts} == {
        shard_name("in", "train", index, len(parts)) for index in range(len(parts))
    }


def test_options_check_themselves():
    with pytest.raises(UsageError, match="--num_shards must be 1 to 99,999"):
        planning.Options("data", num_shards=-1)


def test_a_tables_bytes_are_numpys(shards):
    whole = manifest.load(shards)
    part = whole.splits["train"].shards[0]
    table = np.load(io.BytesIO((shards / f"{part.file}.npy").read_bytes()), allow_pickle=False)
    assert table.dtype == records.table_dtype(2)
    assert json.loads((shards / "manifest.json").read_text())["format_version"] == 1


def test_a_renamed_input_folder_is_told_which_name_continues_its_conversion(tmp_path, capsys):
    images = folders.make(tmp_path / "old", {"a": 1, "b": 1})
    assert convert_to(tmp_path / "out", images) == 0
    images.rename(tmp_path / "new")
    assert convert_to(tmp_path / "out", tmp_path / "new") == 1
    assert 'name ("old" there, "new" now); pass --name=old to continue it' in capsys.readouterr().err
    assert convert_to(tmp_path / "out", tmp_path / "new", "--name=old") == 0
