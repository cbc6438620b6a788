import csv
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import run_command
from tests.helpers import folders, odd_images
from tfrecords_tools import convert, inspect
from tfrecords_tools.checking import duplicates, hashing
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest

SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, distance=st.integers(0, 6))
def test_near_finds_what_comparing_all_pairs_finds(seed, distance):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**64, 40, np.uint64)
    for _ in range(40):  # neighbours of some, a few bits away
        flips = rng.choice(64, rng.integers(0, 9), replace=False)
        mask = np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
        values = np.append(values, values[rng.integers(len(values))] ^ mask)
    has_phash = rng.random(len(values)) < 0.9
    content = np.stack([np.arange(len(values), dtype=np.uint64)] * 2, 1)
    actual = duplicates.groups(hashing.Hashes(content, values, has_phash), distance)
    expected = np.arange(len(values))
    changed = True
    while changed:
        changed = False
        for one in range(len(values)):
            for other in range(one):
                close = (
                    has_phash[one]
                    and has_phash[other]
                    and int(values[one] ^ values[other]).bit_count() <= distance
                )
                low = min(expected[one], expected[other])
                if close and (expected[one] != low or expected[other] != low):
                    expected[one] = expected[other] = low
                    changed = True
    np.testing.assert_array_equal(actual, expected)


def test_copies_look_alike_and_other_pictures_do_not():
    picture = odd_images.picture(96, 96, seed=1)
    copies = [picture.resize((64, 64)), Image.fromarray((np.asarray(picture) * 0.9).astype(np.uint8))]
    own = hashing.phash(np.asarray(picture))
    assert all((own ^ hashing.phash(np.asarray(copy))).bit_count() <= 4 for copy in copies)
    others = [hashing.phash(np.asarray(odd_images.picture(96, 96, seed=seed))) for seed in range(2, 30)]
    assert all((own ^ other).bit_count() > 8 for other in others)


@pytest.fixture
def leaky(tmp_path):
    """Six pictures a class and split; one of validation is in train too, one of test nearly so."""
    root = folders.make(
        tmp_path / "in", {f"{s}/{c}": 6 for s in ("train", "validation", "test") for c in "ab"}, size=48
    )
    (root / "train/a/copy.jpg").write_bytes((root / "validation/a/0.jpg").read_bytes())
    with Image.open(root / "test/b/1.jpg") as opened:
        (root / "train/b/near.jpg").write_bytes(odd_images.save(opened.resize((40, 40)), "JPEG", quality=70))
    (root / "train/a/twice.jpg").write_bytes((root / "train/a/5.jpg").read_bytes())
    return root


def test_inspect_reports_duplicates_within_and_across_splits(leaky, tmp_path, capsys):
    words = f"--input_dir={leaky}", f"--output_dir={tmp_path}/out", "--workers=1"
    assert run_command(convert, *words) == 0
    file = tmp_path / "duplicates.csv"
    words = f"--data_dir={tmp_path}/out", "--per_sheet=0", "--duplicates", f"--duplicates_csv={file}"
    assert run_command(inspect, *words, "--workers=2") == 0
    out = capsys.readouterr().out
    assert "exact duplicates: 1 group across splits (2 images), 1 within a split (2 images)" in out
    assert "within 4 bits of 64: 2 groups across splits (4 images), 1 within a split (2 images)" in out
    groups = {}
    for group, _, key, _ in list(csv.reader(file.open(newline="")))[1:]:
        groups.setdefault(group, set()).add(key)
    assert sorted(map(sorted, groups.values())) == [
        ["test/b/1.jpg", "train/b/near.jpg"], ["train/a/5.jpg", "train/a/twice.jpg"],
        ["train/a/copy.jpg", "validation/a/0.jpg"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("distance", "dropped"), [(-1, {"train/a/copy.jpg"}), (4, {"train/a/copy.jpg", "train/b/near.jpg"})]
)
def test_drop_duplicates_cleans_the_training_side(leaky, tmp_path, distance, dropped):
    words = f"--input_dir={leaky}", f"--output_dir={tmp_path}/out", "--drop_duplicates=across_splits"
    assert run_command(convert, *words, f"--duplicate_distance={distance}", "--workers=1") == 0
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    assert set(rows) == dropped
    assert rows["train/a/copy.jpg"] == "duplicate across splits: validation/a/0.jpg is the same picture"
    whole = manifest.load(tmp_path / "out")
    assert whole.splits["validation"].records == whole.splits["test"].records == 12
    assert whole.splits["train"].records == 15 - len(dropped)


@pytest.mark.parametrize("words", [(), ("--encoding=raw", "--image_size=40")])
@pytest.mark.parametrize("distance", [-1, 4])
def test_append_drops_what_other_splits_of_the_shards_have(leaky, tmp_path, capsys, distance, words):
    for name in ("train/a/copy.jpg", "train/b/near.jpg", "train/a/twice.jpg"):
        (leaky / name).rename(tmp_path / name.replace("/", "_"))
    output = tmp_path / "out"
    words = (f"--output_dir={output}", "--drop_duplicates=across_splits", *words,
             f"--duplicate_distance={distance}", "--workers=1", "--num_shards=2")  # fmt: skip
    assert run_command(convert, f"--input_dir={leaky}", *words) == 0
    before = {name: value for name, value in folders.sums(output).items() if "tfrecord" in name}
    for name in ("train/a/copy.jpg", "train/b/near.jpg", "train/a/twice.jpg"):
        (tmp_path / name.replace("/", "_")).rename(leaky / name)
    # The training side is in the shards already: the copy that comes later has to stay out.
    (leaky / "test/a/late.jpg").write_bytes((leaky / "train/a/1.jpg").read_bytes())
    # Two new images that are one picture, of two splits: the one of test stays.
    picture = odd_images.save(odd_images.picture(48, 48, seed=77), "PNG")
    (leaky / "train/b/new.png").write_bytes(picture)
    (leaky / "test/b/new.png").write_bytes(picture)
    for expected in ("dropped 4 images" if distance == 4 else "dropped 3 images", "nothing to append"):
        assert run_command(convert, f"--input_dir={leaky}", *words, "--append") == 0
        assert expected in capsys.readouterr().out
    assert {name: folders.sums(output)[name] for name in before} == before
    added = set(splits_of(output)) - {f"{s}/{c}/{n}.jpg" for s in ("train", "validation", "test")
                                      for c in "ab" for n in range(6)}  # fmt: skip
    near = {"train/b/near.jpg"} if distance == -1 else set()
    assert added == {"train/a/twice.jpg", "test/b/new.png"} | near
    with (output / "skipped.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    assert rows["train/a/copy.jpg"] == "duplicate across splits: validation/a/0.jpg is the same picture"
    assert rows["test/a/late.jpg"] == "duplicate across splits: train/a/1.jpg is the same picture"
    assert rows["train/b/new.png"] == "duplicate across splits: test/b/new.png is the same picture"

    shard = output / sorted(before)[0]
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-1])
    assert run_command(convert, f"--input_dir={leaky}", *words, "--repair") == 0
    assert shard.read_bytes() == sound

    (output / "skipped.csv").write_bytes(b"damaged")
    assert run_command(convert, f"--input_dir={leaky}", *words, "--repair") == 0
    with (output / "skipped.csv").open(newline="") as file:
        again = dict(list(csv.reader(file))[1:])
    assert again.keys() == rows.keys() and all("duplicate" in reason for reason in again.values())


def splits_of(output: pathlib.Path) -> dict[str, str]:
    from tests.helpers.conversions import stored

    return {key: split for key, (split, _, _) in stored(output).items()}


SPLIT = "--split=train:0.7,validation:0.2,test:0.1"


def test_splits_are_a_function_of_content_and_additions_move_nothing(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 150, "b": 150}, size=8)
    assert (
        run_command(convert, f"--input_dir={root}", f"--output_dir={tmp_path}/1", SPLIT, "--workers=1") == 0
    )
    first = splits_of(tmp_path / "1")
    for name in "ab":
        share = [split for key, split in first.items() if key.startswith(name)].count("train") / 150
        assert 0.58 < share < 0.82  # 0.7, give or take 3 standard deviations
    for path in list((root / "a").iterdir()):
        path.rename(root / "a" / f"renamed_{path.name}")
    folders.make(tmp_path / "more", {"a": 400})
    for number in range(300, 330):
        (tmp_path / f"more/a/{number}.jpg").rename(root / f"a/added{number}.jpg")
    assert (
        run_command(convert, f"--input_dir={root}", f"--output_dir={tmp_path}/2", SPLIT, "--workers=1") == 0
    )
    second = splits_of(tmp_path / "2")
    assert len(second) == 330
    for key, split in first.items():
        assert second[key.replace("a/", "a/renamed_")] == split


def test_groups_stay_together(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 60, "b": 60}, size=8)
    for path in list(root.rglob("*.jpg")):
        path.rename(path.with_name(f"scene{int(path.stem) // 5:02d}_{path.name}"))
    words = f"--input_dir={root}", f"--output_dir={tmp_path}/out", SPLIT, "--group={stem:.7}", "--workers=1"
    assert run_command(convert, *words) == 0
    scenes = {}
    for key, split in splits_of(tmp_path / "out").items():
        scenes.setdefault(key.split("/")[1][:7], set()).add(split)
    assert len(scenes) == 12 and all(len(splits) == 1 for splits in scenes.values())
    assert len(set.union(*scenes.values())) > 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--split=train:0.7"], 2, "the shares add up to 0.7, not to 1"),
        (["--split=train"], 2, "'train' is not name:share"),
        (["--split=train:0.5,train:0.5"], 2, "a split occurs twice"),
        (["--group={stem}"], 2, "--group needs --split"),
        ([SPLIT, "--group={stem"], 2, "not a template such as {stem}"),
        ([SPLIT, "--group={artist}"], 1, "there is no field 'artist', only stem, name"),
        (["--duplicate_distance=99"], 2, "--duplicate_distance must be 0 to 16"),
    ],
)
def test_wrong_usage(tmp_path, capsys, words, code, message):
    root = folders.make(tmp_path / "in", {"a": 2, "b": 2})
    exit_code = run_command(
        convert, f"--input_dir={root}", f"--output_dir={tmp_path}/out", "--workers=1", *words
    )
    assert exit_code == code
    assert message in capsys.readouterr().err


def test_split_of_a_folder_that_has_splits_is_refused(leaky, tmp_path, capsys):
    words = f"--input_dir={leaky}", f"--output_dir={tmp_path}/out", SPLIT, "--workers=1"
    assert run_command(convert, *words) == 1
    assert "has splits already (test, train, validation)" in capsys.readouterr().err


def test_distances_check_themselves():
    with pytest.raises(UsageError, match="or -1 for exact only, not -2"):
        duplicates.require_distance(-2)
