import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import run_command
from tests.helpers import folders
from tfrecords_tools import convert, verify
from tfrecords_tools.checking import audit
from tfrecords_tools.format import manifest, records


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folders.duel(tmp_path_factory.mktemp("verify") / "images")


@pytest.fixture(scope="module")
def shards(images):
    output = images.parent / "shards"
    words = f"--input_dir={images}", f"--output_dir={output}", "--num_shards=1", "--workers=1"
    assert run_command(convert, *words) == 0
    return output


@pytest.fixture
def copy(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "copy")


def check(folder, *words: str) -> int:
    return run_command(verify, f"--data_dir={folder}", "--workers=1", *words)


def repair(images, folder) -> int:
    words = f"--input_dir={images}", f"--output_dir={folder}", "--num_shards=1", "--workers=1", "--repair"
    return run_command(convert, *words)


def test_a_sound_folder_is_sound(copy, capsys):
    assert check(copy, "--decode") == 0
    assert "sound, 36 images in 3 shards, every image decodes" in capsys.readouterr().out


def test_one_flipped_bit_in_any_file_is_found_by_name(shards, copy, capsys):
    rng = np.random.default_rng(0)
    for path in sorted(copy.iterdir()):
        sound = path.read_bytes()
        # The ends, and some between: in text files also the white space counts.
        for place in {0, len(sound) - 1, *rng.integers(0, len(sound), 6).tolist()}:
            hurt = bytearray(sound)
            hurt[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(hurt)
            assert check(copy) == 1, (path.name, place)
            printed = capsys.readouterr()
            assert path.name in printed.out + printed.err, (path.name, place)
            path.write_bytes(sound)
    assert check(copy) == 0


@pytest.mark.parametrize("cut", ["half", "one byte", "all", "removed", "longer"])
def test_any_file_truncated_or_removed_is_found_by_name(copy, capsys, cut):
    for path in sorted(copy.iterdir()):
        sound = path.read_bytes()
        if cut == "removed":
            path.unlink()
        else:
            path.write_bytes({"half": sound[: len(sound) // 2], "one byte": sound[:-1], "all": b"",
                              "longer": sound + b"\0"}[cut])  # fmt: skip
        assert check(copy) == 1, path.name
        printed = capsys.readouterr()
        assert path.name in printed.out + printed.err, path.name
        path.write_bytes(sound)
    assert check(copy) == 0


def shard_of(copy):
    part = manifest.load(copy).splits["train"].shards[0]
    return copy / part.file, np.load(copy / f"{part.file}.npy")


def test_damage_names_record_and_key_and_the_command_that_rebuilds_it(images, shards, copy, capsys):
    path, table = shard_of(copy)
    keys = list(records.read_keys(path.read_bytes()))
    data = bytearray(path.read_bytes())
    data[table["image_offset"][5] + 100] ^= 16
    path.write_bytes(data)
    assert check(copy) == 1
    printed = capsys.readouterr()
    assert f"{path.name}, record 5 ({keys[5].decode()}): the checksum of its data is wrong" in printed.out
    assert "record 4" not in printed.out and "record 6" not in printed.out
    assert f"python -m tfrecords_tools.convert --input_dir=IMAGES --output_dir={copy}" in printed.err
    assert repair(images, copy) == 0
    assert folders.sums(copy) == folders.sums(shards)


def test_the_printed_command_does_rebuild(images, shards, copy, capsys):
    path, _ = shard_of(copy)
    path.write_bytes(path.read_bytes()[:-9])
    assert check(copy) == 1
    command = capsys.readouterr().err.partition("with: ")[2].strip().replace("IMAGES", str(images))
    done = subprocess.run(
        command.replace("python", sys.executable, 1), shell=True, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert folders.sums(copy) == folders.sums(shards)


def test_a_broken_length_does_not_hide_the_records_behind_it(copy, capsys):
    path, table = shard_of(copy)
    data = bytearray(path.read_bytes())
    data[table["offset"][3] + 1] ^= 1
    data[table["image_offset"][7] + 50] ^= 1
    path.write_bytes(data)
    assert check(copy) == 1
    out = capsys.readouterr().out
    assert "record 3" in out and "the checksum of its length is wrong" in out
    assert "record 7" in out and "record 5" not in out


def test_each_kind_of_file_is_rebuilt(images, shards, copy, capsys):
    expected = folders.sums(shards)
    for name in expected:
        if name in ("manifest.json", "images-00001.npy"):
            continue
        sound = (copy / name).read_bytes()
        (copy / name).write_bytes(sound[:-1])
        assert repair(images, copy) == 0
        assert folders.sums(copy) == expected, name
    assert repair(images, copy) == 0
    assert "sound, nothing to rebuild" in capsys.readouterr().out


def test_repair_from_other_images_is_refused(images, copy, tmp_path, capsys):
    other = folders.duel(tmp_path / "images", each=3)
    path, _ = shard_of(copy)
    path.write_bytes(path.read_bytes()[:-9])
    before = folders.sums(copy)
    assert repair(other, copy) == 1
    error = capsys.readouterr().err
    assert (
        "the input's files, sizes or labels" in error and "use the same images and options as then" in error
    )
    assert folders.sums(copy) == before


def test_repair_leaves_a_shard_alone_that_it_cannot_make_the_same_again(copy, tmp_path, capsys):
    other = folders.duel(tmp_path / "images")
    path, _ = shard_of(copy)
    path.write_bytes(path.read_bytes()[:-9])
    changed = other / next(iter(records.read_keys(path.read_bytes()[:2000]))).decode()
    data = bytearray(changed.read_bytes())
    data[-5] ^= 1  # the same size: only the bytes tell
    changed.write_bytes(data)
    before = folders.sums(copy)
    assert repair(other, copy) == 1
    assert (
        f"{path}: not replaced, because the rebuilt shard would have other bytes" in capsys.readouterr().err
    )
    assert {name: value for name, value in folders.sums(copy).items() if ".convert" not in name} == before


def rewrite(copy, split: str, change) -> None:
    """Makes a folder whose sums are right and whose content is not, as a faulty writer would."""
    import dataclasses
    import hashlib

    whole = manifest.load(copy)
    part = whole.splits[split].shards[0]
    files = {ending: (copy / (part.file + ending)).read_bytes() for ending in ("", ".idx", ".npy")}
    change(files)
    for ending, data in files.items():
        (copy / (part.file + ending)).write_bytes(data)
    sums = {ending: hashlib.sha256(data).hexdigest() for ending, data in files.items()}
    part = dataclasses.replace(part, bytes=len(files[""]), sha256=sums)
    splits = whole.splits | {split: dataclasses.replace(whole.splits[split], shards=(part,))}
    (copy / "manifest.json").write_bytes(manifest.dumps(dataclasses.replace(whole, splits=splits)))


def without_last_line(files):
    files[".idx"] = b"".join(files[".idx"].splitlines(keepends=True)[:-1])


def other_label(files):
    first = next(iter(records.read_payloads(files[""])))
    encoded, key, labels = records.parse(first)
    whole = records.frame(records.serialize(encoded, key, labels | {"category": 9}))
    files[""] = whole + files[""][len(whole) :]


def one_record_less(files):
    offset, size = map(int, files[".idx"].splitlines()[-1].split())
    files[""] = files[""][:offset]


def garbage_image(files):
    payloads = list(records.read_payloads(files[""]))
    encoded, key, labels = records.parse(payloads[0])
    hurt = records.frame(records.serialize(encoded[:-20] + b"\0" * 20, key, labels))
    files[""] = hurt + files[""][len(hurt) :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_last_line, ".idx: does not give the offsets of the records"),
        (other_label, "a label is out of range"),
        (one_record_less, "15 records, but the manifest says 16"),
        (garbage_image, "damaged JPEG: Premature end"),
    ],
)
def test_a_writers_faults_are_found_though_all_sums_are_right(copy, capsys, change, message):
    rewrite(copy, "train", change)
    assert check(copy, "--decode") == 1
    assert message in capsys.readouterr().out


def test_wrong_counts_in_the_manifest_are_found(copy, capsys):
    import dataclasses

    whole = manifest.load(copy)
    split = dataclasses.replace(whole.splits["train"], cells={"real/cats": 16})
    (copy / "manifest.json").write_bytes(
        manifest.dumps(dataclasses.replace(whole, splits=whole.splits | {"train": split}))
    )
    assert check(copy) == 1
    assert "manifest.json: counts {'real/cats': 16} in train" in capsys.readouterr().out


def test_strangers_are_mentioned_and_harmless(copy, capsys):
    (copy / "notes.txt").write_text("mine")
    assert check(copy) == 0
    assert "notes.txt: not in the manifest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [([], 2, "--data_dir is missing; set it to a folder of shards"),
     (["--data_dir=nowhere"], 1, "there is no such folder of shards"),
     (["--data_dir=x", "--workers=-2"], 2, "--workers must be 1 to 1024")],
)  # fmt: skip
def test_wrong_usage(capsys, words, code, message):
    assert run_command(verify, *words) == code
    assert message in capsys.readouterr().err


def test_several_workers_find_the_same(copy):
    path, table = shard_of(copy)
    data = bytearray(path.read_bytes())
    data[table["image_offset"][5] + 100] ^= 16
    path.write_bytes(data)
    one = audit.audit(str(copy), decode=True, processes=1)
    assert audit.audit(str(copy), decode=True, processes=2) == one


def test_what_is_no_regular_file_is_damage_and_never_waited_for(copy, capsys):
    names = ("manifest.json", "rejected.csv", next(copy.glob("*.npy")).name, next(copy.glob("*-00001")).name)
    for name in names[1:]:
        (copy / name).unlink()
        os.mkfifo(copy / name)
    assert check(copy) == 1
    printed = capsys.readouterr()
    for name in names[1:]:
        assert f"{name}: unreadable (not a regular file)" in printed.out + printed.err
    (copy / names[0]).unlink()
    os.mkfifo(copy / names[0])
    assert check(copy) == 1
    assert "manifest.json: unreadable" in capsys.readouterr().err
