import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tests import folders, odd_images
from tests.conftest import run_command
from tfrecords_tools import (
    contents,
    convert,
    folder,
    manifest,
    planning,
    progress,
    records,
    shard,
    verify,
    workers,
)
from tfrecords_tools.cli import DataError, UsageError


def convert_to(output, images, *words: str) -> int:
    return run_command(convert, f"--input_dir={images}", f"--output_dir={output}", "--workers=1", *words)


def stored(data_dir) -> dict[str, tuple[str, dict[str, int], bytes]]:
    """key -> (split, labels, encoded image), read record by record."""
    whole, found = manifest.load(data_dir), {}
    for split, held in whole.splits.items():
        for part in held.shards:
            for payload in records.read_payloads((pathlib.Path(data_dir) / part.file).read_bytes()):
                encoded, key, labels = records.parse(payload)
                found[records.key_text(key)] = split, labels, encoded
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folders.duel(tmp_path_factory.mktemp("convert") / "images")


@pytest.fixture(scope="module")
def shards(images):
    output = images.parent / "shards"
    assert convert_to(output, images, "--num_shards=3") == 0
    return output


def test_every_image_is_stored_once_with_its_labels_and_bytes(images, shards):
    found = stored(shards)
    assert len(found) == 36
    for key, (split, labels, encoded) in found.items():
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
    others = {"manifest.json", "rejected.csv", "images-00001.npy", "dataset_info.json", "features.json",
              "authenticity.labels.txt", "category.labels.txt"}  # fmt: skip
    assert names == wanted | others
    whole = manifest.load(shards)
    assert whole.axes == {"authenticity": ("real", "fake"), "category": ("cats", "dogs")}
    assert whole.splits["test"].cells == {"?/?": 4}
    assert whole.splits["train"].cells == {f"{a}/{c}": 4 for a in ("fake", "real") for c in ("cats", "dogs")}
    assert (whole.image_sizes, whole.encodings, whole.rejected) == ({"24x24": 36}, {"jpeg": 36}, 0)
    assert (shards / "rejected.csv").read_text() == "key,reason\n"


def test_index_and_table_address_each_record(shards):
    for split, held in manifest.load(shards).splits.items():
        for file, table in contents.tables(manifest.load(shards), str(shards), split):
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
        assert held.records == sum(part.records for part in held.shards)


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
    assert "holds exactly this conversion already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in shards.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_shards=2"], r"differs in num_shards \(there 3, now 2\)"),
        (["--num_shards=3", "--seed=7"], r"differs in seed \(there 0, now 7\)"),
        (["--num_shards=3", "--encoding=png"], r'differs in encoding \(there "keep", now "png"\)'),
        (["--num_shards=3", "--name=cats"], r'differs in name \(there "images", now "cats"\)'),
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
        ([], "--input_dir is needed"),
        (["--input_dir=x"], "--output_dir is needed"),
        (["--input_dir=x", "--output_dir=x/y"], "--output_dir must lie outside --input_dir"),
        (["--input_dir=x", "--output_dir=y", "--workers=-1"], "--workers is 1 to 1024"),
        (["--input_dir=x", "--output_dir=y", "--max_rejected=2"], "--max_rejected is a share"),
        (["--input_dir=x", "--output_dir=y", "--encoding=gif"], "value should be one of"),
        (["--input_dir=x", "--output_dir=y", "--shard_mb=0"], "--shard_mb is 1 to"),
        (["--input_dir=x", "--output_dir=y", "--name=a-b"], "--name is letters, digits and _"),
        (["--input_dir=x", "--output_dir=y", "--image_size=64"], "--encoding=keep stores the original"),
        (["--input_dir=x", "--output_dir=y", "--repair", "--append"], "--repair goes with neither"),
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
    assert re.search(r"converting: 9 of 36 images, [\d,.]+/s, \d+ s left, [\d,.]+ MB/s, 0 rejected", error)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Every odd image there is, among 60 plain ones."""
    root = folders.make(tmp_path_factory.mktemp("odd") / "odd", {"a": 30, "b": 30})
    corpus = odd_images.kept() | {
        k: v[0] for k, v in (odd_images.reencoded() | odd_images.rejected()).items()
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
    whole, found = manifest.load(output), stored(output)
    with (output / "rejected.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    assert set(rows) == {f"a/{name}" for name in odd_images.rejected()} | {
        "b/directory.jpg", "b/broken.jpg", "b/\\xff,\n.jpg",
    }  # fmt: skip
    for name, (_, reason) in odd_images.rejected().items():
        assert rows[f"a/{name}"].startswith(reason)
    assert whole.rejected == len(rows)
    names = {f"a/{name}" for name in (*odd_images.kept(), *odd_images.reencoded())}
    assert names <= set(found)
    assert {
        "b/new\nline.jpg",
        'b/com,ma "quoted".jpg',
        "b/\\xff\\xfe not utf-8.jpg",
        "b/ümläut 猫.jpg",
    } <= set(found)
    assert sum(whole.reencoded.values()) == len(odd_images.reencoded())
    assert whole.reencoded["JPEG, CMYK"] == 1
    assert "stored as PNG for GIF, animated, first frame: 1" in capsys.readouterr().out


def test_too_many_rejected_is_exit_code_1_and_more_can_be_allowed_later(odd, tmp_path, capsys):
    output = tmp_path / "out"
    assert convert_to(output, odd) == 1
    error = capsys.readouterr().err
    assert "images are rejected, but --max_rejected is a share of 0.01" in error
    assert not (output / "manifest.json").exists() and (output / "rejected.csv").exists()
    assert convert_to(output, odd, "--max_rejected=1") == 0
    assert "going on after 1 finished shards" in capsys.readouterr().out
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
    assert "going on after" in capsys.readouterr().out
    assert run_command(verify, f"--data_dir={tmp_path}/out", "--workers=1") == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_rejected(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 3, "b": 3})
    (root / "a" / "0.jpg").chmod(0)
    assert convert_to(tmp_path / "out", root, "--max_rejected=0.5") == 0
    assert "a/0.jpg,unreadable: permission denied" in (tmp_path / "out" / "rejected.csv").read_text()


def test_an_unreadable_file_is_a_reason_and_a_vanished_one_an_error(tmp_path):
    class Source:
        def __init__(self, error):
            self.error = error

        def read_image(self, key):
            raise self.error

    common = shard.Common("in", "out", {}, planning.Recipe())
    denied = shard.fetch(Source(PermissionError(13, "denied")), b"a.jpg", 5, common)
    assert denied.reason == "unreadable: permission denied"
    with pytest.raises(DataError, match="in/a.jpg: gone, though it was there when the folder was listed"):
        shard.fetch(Source(FileNotFoundError(2, "gone")), b"a.jpg", 5, common)


def test_an_image_that_changes_after_listing_is_an_error(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 2, "b": 2})
    plan = planning.plan(folder.scan(str(root)), planning.Options("data"))
    (root / "a" / "0.jpg").write_bytes(b"something else")
    from tfrecords_tools import writer

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
        for file, table in contents.tables(whole, str(tmp_path / "out"), split):
            for row in table:
                assert contents.pixels((tmp_path / "out" / file).read_bytes(), row).shape == (side, side, 3)
    assert run_command(verify, f"--data_dir={tmp_path}/out", "--decode", "--workers=1") == 0


def test_shards_follow_shard_mb(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 8, "b": 8}, size=512, kind="PNG")
    size = sum(path.stat().st_size for path in root.rglob("*.png"))
    assert convert_to(tmp_path / "out", root, "--shard_mb=1") == 0
    parts = manifest.load(tmp_path / "out").splits["train"].shards
    assert len(parts) == -(-size // 10**6) > 1
    assert {part.file for part in parts} == {
        planning.shard_name("in", "train", index, len(parts)) for index in range(len(parts))
    }


# Interruptions.


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
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_a_worker_killed_alone_is_replaced(many, tmp_path):
    images, expected, _ = many
    process = start(images, tmp_path / "out")
    worker = wait_for(lambda: children(process.pid))[0]
    os.kill(worker, signal.SIGKILL)
    assert process.wait(60) == 0, process.stderr.read()
    assert folders.sums(tmp_path / "out") == expected


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
    crew = workers.Crew(die_on_three, None, workers=2, on_tick=lambda *counts: None)
    seen = []
    with pytest.raises(workers.Died, match="killed by SIGKILL") as death:
        for job, result in crew.run(range(6)):
            seen.append((job, result))
    assert (death.value.job, death.value.done) == (3, 2)
    assert all(result == job * 10 for job, result in seen)


def fail_on_three(common, job, counts):
    if job == 3:
        raise ValueError("three")


def test_an_exception_in_a_worker_reaches_the_parent_with_its_origin():
    crew = workers.Crew(fail_on_three, None, workers=2, on_tick=lambda *counts: None)
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


# Additions.


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
    assert "differs in seed (there 0, now 3)" in capsys.readouterr().err
    assert folders.sums(tmp_path / "out") == before
    assert convert_to(tmp_path / "out", more, "--append", "--name=images") == 0
    assert manifest.load(tmp_path / "out").splits["train"].cells["real/dogs"] == 3


def test_options_check_themselves():
    with pytest.raises(UsageError, match="--num_shards is 1 to 99,999"):
        planning.Options("data", num_shards=-1)


def test_a_tables_bytes_are_numpys(shards):
    whole = manifest.load(shards)
    part = whole.splits["train"].shards[0]
    table = np.load(io.BytesIO((shards / f"{part.file}.npy").read_bytes()), allow_pickle=False)
    assert table.dtype == records.table_dtype(2)
    assert json.loads((shards / "manifest.json").read_text())["format_version"] == 1
