import json
import pathlib
import shlex
import tarfile

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from tests.conftest import run_command
from tests.helpers import folders, odd_images
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools import export
from tfrecords_tools.format import manifest, records

BYTES_OF_SHARDS = ("*.tfrecord-*", "*.npy", "*.labels.txt")


def export_to(output, data_dir, kind: str, *words: str) -> int:
    return run_command(export, f"--data_dir={data_dir}", f"--output={output}", f"--format={kind}", *words)


def shards_of(data_dir: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for kind in BYTES_OF_SHARDS for path in data_dir.glob(kind)}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two axes, a split without labels, and two files whose bytes could not be kept."""
    root = folders.duel(tmp_path_factory.mktemp("export") / "in", each=2)
    (root / "train/real/cats/palette.gif").write_bytes(
        odd_images.save(odd_images.picture(9, 8, seed=7), "GIF")
    )
    (root / "test/grüße.v2.jpg").write_bytes(odd_images.save(odd_images.picture(9, 8, seed=8), "JPEG"))
    output = root.parent / "shards"
    assert convert_to(output, root, "--name=data", "--num_shards=2") == 0
    return output


@pytest.mark.parametrize("kind", export.FORMATS)
def test_a_round_trip_gives_the_same_shards(shards, tmp_path, kind, capsys):
    assert export_to(tmp_path / "out", shards, kind) == 0
    (command,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("back to shards: ")
    ]
    words = shlex.split(command)
    source, *others = words[words.index("tfrecords_tools.convert") + 1 :]
    source = source.removeprefix("--input=")
    assert convert_to(tmp_path / "again", source, *others, "--name=data", "--num_shards=2") == 0
    assert shards_of(tmp_path / "again") == shards_of(shards)


def test_a_folder_is_the_one_that_was_converted(shards, tmp_path):
    assert export_to(tmp_path / "out", shards, "folder") == 0
    before, after = folders.sums(shards.parent / "in"), folders.sums(tmp_path / "out")
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys() and changed == {"train/real/cats/palette.gif"}  # stored as PNG


def test_labels_and_splits_that_no_directory_says_go_to_a_table(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 12, "b": 12})
    words = "--split=train:0.5,test:0.5", "--name=data", "--allow_missing_classes"
    assert convert_to(tmp_path / "shards", root, *words) == 0
    assert export_to(tmp_path / "out", tmp_path / "shards", "folder") == 0
    assert (tmp_path / "out/metadata.csv").read_text().startswith("image_path,split,category\na/0.jpg,")
    assert convert_to(tmp_path / "again", tmp_path / "out", "--layout=", words[1], words[2]) == 0
    assert shards_of(tmp_path / "again") == shards_of(tmp_path / "shards")


def test_raw_pixels_are_written_as_png_and_come_back_as_they_were(tmp_path):
    root = folders.make(tmp_path / "in", {"a": 2, "b": 2})
    words = "--encoding=raw", "--image_size=8", "--name=data"
    assert convert_to(tmp_path / "shards", root, *words) == 0
    assert export_to(tmp_path / "out", tmp_path / "shards", "webdataset") == 0
    assert convert_to(tmp_path / "again", f"tar:{tmp_path}/out", *words) == 0
    assert shards_of(tmp_path / "again") == shards_of(tmp_path / "shards")


def test_files_are_begun_anew_at_the_size_that_was_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    root = folders.make(tmp_path / "in", {"a": 1, "b": 1})
    for name in ("a/large.png", "b/large.png"):
        noise = Image.fromarray(rng.integers(0, 256, (700, 700, 3), np.uint8))
        (root / name).write_bytes(odd_images.save(noise, "PNG"))
    assert convert_to(tmp_path / "shards", root, "--name=data") == 0
    assert export_to(tmp_path / "tar", tmp_path / "shards", "webdataset", "--shard_mb=1") == 0
    assert len(list((tmp_path / "tar").glob("data-train-*.tar"))) == 3
    assert export_to(tmp_path / "parquet", tmp_path / "shards", "parquet", "--shard_mb=1") == 0
    names = {f"train-0000{number}-of-00003.parquet" for number in range(3)}
    assert {path.name for path in (tmp_path / "parquet/data").iterdir()} == names


def test_webdataset_samples_have_image_class_and_document(shards, tmp_path):
    assert export_to(tmp_path / "out", shards, "webdataset") == 0
    with tarfile.open(tmp_path / "out/data-train-000000.tar") as archive:
        names = archive.getnames()[:3]
        image, number, document = (archive.extractfile(name).read() for name in names)
    assert names == ["00000000.jpg", "00000000.cls", "00000000.json"]
    fields = json.loads(document)
    split, labels, data = stored(shards)[fields["key"]]
    category = manifest.load(shards).axes["category"]
    assert (fields["split"], image, number) == (split, data, str(labels["category"]).encode())
    assert fields["labels"]["category"] == category[labels["category"]]


def test_parquet_files_have_the_features_of_hugging_face(shards, tmp_path):
    assert export_to(tmp_path / "out", shards, "parquet") == 0
    table = pyarrow.parquet.read_table(tmp_path / "out/data/test-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["category"] == {"names": ["cats", "dogs"], "_type": "ClassLabel"}
    assert {row["category"] for row in table.to_pylist()} == {-1}
    assert table.column("image")[0].as_py().keys() == {"bytes", "path"}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (b"../../up.jpg", "its name leads out"),
        (b"/etc/a\nb.jpg", "the image /etc/a\\nb.jpg: its name is an absolute path"),
        (b"metadata.csv", "an image has the path metadata.csv"),
        (b"classes.txt", "an image has the path classes.txt"),
    ],
)
def test_a_key_that_is_no_place_for_an_image_is_refused(tmp_path, monkeypatch, capsys, key, said):
    root = folders.make(tmp_path / "in", {"a": 1, "b": 1})
    (tmp_path / "order.txt").write_text("b\na\n")
    words = f"--class_order={tmp_path}/order.txt", "--allow_missing_classes", "--split=train:0.5,test:0.5"
    assert convert_to(tmp_path / "shards", root, *words, "--seed=1") == 0
    real = records.parse

    def parse(payload):
        image, own_key, labels = real(payload)
        return image, key if own_key == b"a/0.jpg" else own_key, labels

    monkeypatch.setattr(records, "parse", parse)
    assert export_to(tmp_path / "out", tmp_path / "shards", "folder") == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "up.jpg").exists()


def test_nothing_is_left_of_an_export_that_fails(shards, tmp_path, capsys):
    import shutil

    damaged = shutil.copytree(shards, tmp_path / "damaged")
    path = next(damaged.glob("data-validation.tfrecord-*-of-00002"))
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)
    assert export_to(tmp_path / "out", damaged, "webdataset") == 1
    assert "checksum of the record at byte 0" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_a_folder_that_holds_something_is_left_alone(shards, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert export_to(tmp_path, shards, "folder") == 1
    assert "exists already" in capsys.readouterr().err
    assert export_to("s3://bucket/out", shards, "folder") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_keeps_any_axis_and_the_order_of_classes(tmp_path, capsys):
    pictures = [odd_images.save(odd_images.picture(9, 8, seed=seed), "PNG") for seed in range(4)]
    features = {"animal": {"_type": "ClassLabel", "names": ["=wolf", "ant"]}}
    table = pyarrow.table({"image": pictures, "animal": [0, 1, 1, 0], "key": ["a/0", "b/0", "b/1.x", "=c"]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert convert_to(tmp_path / "shards", f"parquet:{tmp_path}/a.parquet", "--name=data") == 0
    for kind in export.FORMATS:
        assert export_to(tmp_path / kind, tmp_path / "shards", kind) == 0
        (command,) = [line for line in capsys.readouterr().out.splitlines() if "back to shards" in line]
        source, *others = shlex.split(command)[6:]
        source = source.removeprefix("--input=")
        assert convert_to(tmp_path / f"{kind}-again", source, *others, "--name=data") == 0
        assert shards_of(tmp_path / f"{kind}-again") == shards_of(tmp_path / "shards")
    assert "./=c,train,'=wolf\n" in (tmp_path / "folder/metadata.csv").read_text()  # spreadsheets compute =


def test_a_class_that_a_table_cannot_keep_and_a_label_that_is_none_are_refused(tmp_path, monkeypatch, capsys):
    root = folders.make(tmp_path / "in", {"a": 1, "a ": 1})
    words = "--split=train:0.5,test:0.5", "--allow_missing_classes"
    assert convert_to(tmp_path / "shards", root, *words) == 0
    assert export_to(tmp_path / "out", tmp_path / "shards", "folder") == 1
    assert "the class 'a ' of category: a table keeps no spaces" in capsys.readouterr().err
    real = records.parse
    monkeypatch.setattr(records, "parse", lambda payload: (*real(payload)[:2], {"category": -2}))
    assert export_to(tmp_path / "out", tmp_path / "shards", "webdataset") == 1
    assert "an image has the label -2 on category, which has 2 classes" in capsys.readouterr().err
