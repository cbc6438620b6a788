"""WebDataset, Parquet and TFDS: labels, keys and splits, and what happens to what is odd."""

import io
import json
import pathlib
import re
import sys
import tarfile
import types

import pyarrow
import pyarrow.parquet
import pytest

from tests.conftest import run_command
from tests.helpers import folders, odd_images
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools import convert
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest
from tfrecords_tools.listing import folder
from tfrecords_tools.listing.choice import Choice
from tfrecords_tools.listing.label_file import LabelFileOptions
from tfrecords_tools.sources import labelled, opening
from tfrecords_tools.sources.parquet import AXES_METADATA
from tfrecords_tools.writing import planning

PICTURES = [odd_images.save(odd_images.picture(16, 16, seed=seed), "JPEG") for seed in range(6)]
IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def write_tar(path: pathlib.Path, members: list[tuple[str, bytes]], mode: str = "w") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: pathlib.Path, columns: dict, features: dict | None = None, **options) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path, **options)
    return path


def images(*rows: tuple[bytes | None, str | None]) -> pyarrow.Array:
    return pyarrow.array([{"bytes": data, "path": path} for data, path in rows], IMAGE)


def classes(*names: str) -> dict:
    return {"_type": "ClassLabel", "names": list(names)}


def labels_of(source, **options) -> dict[str, tuple[str, dict]]:
    """key -> (split, axis -> class name)."""
    listing = folder.scan(str(source), allow_missing_classes=True, **options)
    return {
        key: (
            split,
            {axis: listing.axes[axis][label] if label >= 0 else None for axis, label in labels.items()},
        )
        for key, (split, labels) in folders.labels_of(listing).items()
    }


def test_webdataset_class_numbers_have_the_names_beside_the_files(tmp_path):
    write_tar(tmp_path / "x-train-000000.tar", [
        ("0001.jpg", PICTURES[0]), ("0001.cls", b"1"), ("0002.cls", b"0\n"), ("0002.jpg", PICTURES[1]),
        ("0002.txt", b"a caption"),
    ])  # fmt: skip
    write_tar(tmp_path / "x-test-000000.tar", [("0001.jpg", PICTURES[2])])
    (tmp_path / "classnames.txt").write_text("wolf\nant\n")
    listing = folder.scan(f"tar:{tmp_path}/*.tar")
    assert listing.axes == {"category": ("wolf", "ant")}  # the source's order
    assert folders.labels_of(listing) == {
        "train/ant/0001.jpg": ("train", {"category": 1}),
        "train/wolf/0002.jpg": ("train", {"category": 0}),
        "test/0001.jpg": ("test", {"category": -1}),
    }
    (tmp_path / "classnames.txt").write_bytes("\ufeffwolf\r\nant\r\n".encode())  # an editor of Windows
    assert folder.scan(f"tar:{tmp_path}/*.tar").axes == {"category": ("wolf", "ant")}


def test_class_numbers_without_names_are_ordered_as_numbers(tmp_path):
    members = []
    for number, label in enumerate((10, 9, 2)):
        members += [(f"{number}.jpg", PICTURES[number]), (f"{number}.cls", str(label).encode())]
    listing = folder.scan(f"tar:{write_tar(tmp_path / 'a.tar', members)}")
    assert listing.axes == {"category": ("2", "9", "10")} and listing.splits == ("train",)


def test_webdataset_documents_give_labels_splits_and_chosen_fields(tmp_path):
    first = {"label": "cat", "generator": "gan", "split": "holdout", "key": "000017"}
    second = {"label": "dog", "generator": "none", "width": 16}
    path = write_tar(tmp_path / "a.tar", [
        ("a.b/1.jpg", PICTURES[0]), ("a.b/1.json", json.dumps(first).encode()),
        ("a.b/2.JPG", PICTURES[1]), ("a.b/2.seg.png", PICTURES[1]),
        ("a.b/2.json", json.dumps(second).encode()),
    ])  # fmt: skip
    assert labels_of(f"tar:{path}") == {
        "holdout/cat/a.b/1.jpg": ("holdout", {"category": "cat"}),
        "train/dog/a.b/2.jpg": ("train", {"category": "dog"}),
    }
    chosen = labels_of(f"tar:{path}", labels=LabelFileOptions(label_columns={"generator": "generator"}))
    assert chosen["holdout/gan/a.b/1.jpg"] == ("holdout", {"generator": "gan"})
    with pytest.raises(DataError, match="no image has a label"):
        labels_of(f"tar:{path}", labels=LabelFileOptions(label_columns={"category": "label.name"}))


def test_halves_of_characters_and_deep_metadata_are_no_labels_that_end_a_conversion(tmp_path):
    first = {"labels": {"category": "\ud800", "split": "x"}, "split": "\udfff", "key": "\ud800"}
    path = write_tar(tmp_path / "a.tar", [("1.jpg", PICTURES[0]), ("1.json", json.dumps(first).encode())])
    assert labels_of(f"tar:{path}") == {"\\udfff/\\ud800/1.jpg": ("_udfff", {"category": "\\ud800"})}
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"image": images((PICTURES[0], "1.jpg")), "label": [1]})
    for key in ("huggingface", AXES_METADATA):
        pyarrow.parquet.write_table(table.replace_schema_metadata({key: "[" * 100_000}), path)
        assert labels_of(f"parquet:{path}") == {"train/1/1.jpg": ("train", {"category": "1"})}


def test_samples_of_no_or_two_images_and_labels_that_are_none_are_rejected(tmp_path):
    path = write_tar(tmp_path / "a.tar", [
        ("0.jpg", PICTURES[0]), ("0.cls", b"cat"), ("1.cls", b"cat"), ("2.jpg", PICTURES[1]),
        ("2.png", PICTURES[1]), ("2.cls", b"cat"), ("3.jpg", PICTURES[2]), ("3.json", b'{"label": [1, 2]}'),
        ("4.jpg", PICTURES[3]), ("4.cls", b"dog"),
    ])  # fmt: skip
    options = LabelFileOptions(label_columns={"category": "label"})
    listing = folder.scan(f"tar:{path}", labels=options, allow_missing_classes=True)
    reasons = dict(listing.rejected)
    assert reasons[b"1"] == "a sample of 0 images ()"
    assert reasons[b"2"] == "a sample of 2 images (jpg, png)"
    assert reasons[b"train/3.jpg"] == "its label is a list, not a class"
    assert len(listing) == 2


def test_compressed_webdataset_gives_the_same_shards(tmp_path, capsys):
    members = [("0.jpg", PICTURES[0]), ("0.cls", b"0"), ("1.jpg", PICTURES[1]), ("1.cls", b"1")]
    write_tar(tmp_path / "plain/a.tar", members)
    write_tar(tmp_path / "gz/a.tar.gz", members, "w:gz")
    assert convert_to(tmp_path / "one", f"tar:{tmp_path}/plain/a.tar", "--name=d") == 0
    assert convert_to(tmp_path / "wrong", tmp_path / "plain/a.tar") == 1
    assert f"pass --input=tar:{tmp_path}/plain/a.tar" in capsys.readouterr().err
    assert convert_to(tmp_path / "two", f"tar:{tmp_path}/gz/*.tar.gz", "--name=d") == 0
    assert folders.sums(tmp_path / "one") == folders.sums(tmp_path / "two")


def test_a_file_that_names_no_split_is_an_error_when_others_do(tmp_path):
    for name in ("train-0.tar", "more-0.tar"):
        write_tar(tmp_path / name, [("0.jpg", PICTURES[0]), ("0.cls", b"cat")])
    with pytest.raises(DataError, match=r"more-0.tar: names no split, .* rename it"):
        folder.scan(f"tar:{tmp_path}")


def test_a_range_names_files_and_a_missing_one_is_an_error(tmp_path):
    for number in (8, 9, 10, 11):
        sample = [(f"{number}.jpg", PICTURES[number % 6]), (f"{number}.cls", b"%d" % (number % 2))]
        write_tar(tmp_path / f"x-{number:03d}.tar", sample)
    assert len(folder.scan(f"tar:{tmp_path}/x-{{008..010}}.tar")) == 3
    with pytest.raises(DataError, match="x-012.tar"):
        folder.scan(f"tar:{tmp_path}/x-{{010..012}}.tar")


@pytest.mark.parametrize("name, split", [
    ("data/train-00000-of-00004.parquet", "train"), ("data/holdout-00000-of-00001.parquet", "holdout"),
    ("default/test/0000.parquet", "test"), ("imagenet-val-000012.parquet", "val"), ("images.parquet", None),
    ("contest.parquet", None),
])  # fmt: skip
def test_splits_by_the_names_of_files(name, split):
    assert labelled.split_of(name, sharded=True) == split


def test_parquet_has_the_class_names_of_its_schema(tmp_path):
    write_parquet(
        tmp_path / "data/train-00000-of-00001.parquet",
        {
            "image": images((PICTURES[0], "x/1.jpg"), (PICTURES[1], None), (PICTURES[2], "x/1.jpg")),
            "label": [1, 0, 1],
        },
        {"image": {"_type": "Image"}, "label": classes("zebra", "ape")},
        row_group_size=2,
    )
    write_parquet(
        tmp_path / "data/test-00000-of-00001.parquet",
        {"image": images((PICTURES[3], "t.jpg")), "label": [-1]},
    )
    listing = folder.scan(f"parquet:{tmp_path}")
    assert listing.axes == {"category": ("zebra", "ape")}
    assert folders.labels_of(listing) == {
        "train/ape/x/1.jpg": ("train", {"category": 1}),
        "train/zebra/train-00000-of-00001-000001.jpg": ("train", {"category": 0}),
        "train/ape/x/1-train-00000-of-00001-000002.jpg": ("train", {"category": 1}),  # its name was taken
        "test/t.jpg": ("test", {"category": -1}),
    }
    assert convert_to(tmp_path / "out", f"parquet:{tmp_path}", "--name=d", "--workers=2") == 0
    stored_images = stored(tmp_path / "out")
    assert (
        stored_images["train/ape/x/1.jpg"][2] == PICTURES[0] and stored_images["test/t.jpg"][2] == PICTURES[3]
    )
    assert not (tmp_path / "out/.convert").exists()


def test_classes_of_a_source_are_chosen_renamed_and_ordered_by_flags(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        {"image": PICTURES[:4], "label": [0, 1, 2, 2]},
        {"label": classes("lion", "ant", "tiger")},
    )
    assert folder.scan(f"parquet:{path}").axes == {"category": ("lion", "ant", "tiger")}
    merged = folder.scan(f"parquet:{path}", choice=Choice(merge={"lion": "cat", "tiger": "cat"}))
    assert merged.axes == {"category": ("cat", "ant")} and merged.labels[:, 0].tolist() == [0, 1, 0, 0]
    natural = folder.scan(f"parquet:{path}", choice=Choice(order="natural", exclude=("tiger",)))
    assert natural.axes == {"category": ("ant", "lion")}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"exclude": ("tiger",)}, ("lion", "none", "ant")),
        ({"exclude": ("*/tiger",)}, ("lion", "none", "ant")),
        ({"include": ("lion", "ant")}, ("lion", "none", "ant")),
        ({"include": ("l[i]on",), "merge": {"lion": "cat"}}, ("cat", "none")),
    ],
)
def test_classes_of_a_source_that_are_left_out_get_no_number(tmp_path, options, names):
    """The class none, of which the source has no image, keeps its own."""
    columns = {"image": PICTURES[:4], "label": [0, 2, 3, 3]}
    path = write_parquet(tmp_path / "a.parquet", columns, {"label": classes("lion", "none", "ant", "tiger")})
    listing = folder.scan(f"parquet:{path}", choice=Choice(**options), allow_missing_classes=True)
    assert listing.axes == {"category": names}


def test_files_that_number_classes_otherwise_are_refused(tmp_path):
    for split, names in (("train", ("lion", "a\tnt")), ("test", ("a\tnt", "lion"))):
        columns = {"image": PICTURES[:2], "label": [0, 1]}
        write_parquet(tmp_path / f"{split}.parquet", columns, {"label": classes(*names)})
    assert folder.scan(f"parquet:{tmp_path}/train.parquet").axes == {"category": ("lion", "a\\tnt")}
    with pytest.raises(DataError, match=r"train.parquet: the numbers in its column 'label' do not stand for"):
        folder.scan(f"parquet:{tmp_path}")


def test_parquet_with_two_class_columns_has_two_axes_and_real_and_fake_are_an_authenticity(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        {"img": [PICTURES[0], PICTURES[1]], "fine_label": [0, 1], "kind": [0, 1]},
        {"fine_label": classes("oak", "elm"), "kind": classes("Fake", "Real")},
    )
    listing = folder.scan(f"parquet:{path}")
    assert listing.axes == {"authenticity": ("real", "fake"), "fine_label": ("oak", "elm")}
    assert [labels for _, labels in folders.labels_of(listing).values()] == [
        {"authenticity": 1, "fine_label": 0}, {"authenticity": 0, "fine_label": 1},
    ]  # fmt: skip


def test_parquet_rows_that_are_no_images_are_rejected_with_the_reason(tmp_path):
    rows = (
        (PICTURES[0], "0.jpg"),
        (None, "/etc/passwd"),
        (None, None),
        (PICTURES[1], "../up.jpg"),
        (PICTURES[3], "/home/she/far.jpg"),
        (PICTURES[2], "3.jpg"),
    )
    path = write_parquet(
        tmp_path / "a.parquet",
        {"image": images(*rows), "label": [0, 0, 0, 0, 0, 7]},
        {"label": classes("a", "b")},
    )
    listing = folder.scan(f"parquet:{path}", allow_missing_classes=True)
    keys = [example.key for example in listing.examples()]
    assert keys == [b"train/a/0.jpg", b"train/a/up.jpg", b"train/a/far.jpg"]
    assert [reason for _, reason in listing.rejected] == [
        "the row has a path but no bytes; datasets.table.embed_table_storage adds them",
        "the row has no image", "the label 7, but there are only 2 class names",
    ]  # fmt: skip


@pytest.mark.parametrize("columns, words, message", [
    ({"image": [b"x"], "score": [0.5]}, (), "no column of classes among image, score; name one with"),
    ({"image": [b"x"], "score": ["a"]}, ("--label_columns=category=kind",), "no column 'kind' for category"),
    ({"label": [1]}, (), "needs one column of images, .* has none"),
    ({"left": [b"x"], "right": [b"x"], "label": [1]}, (), "several .left, right.; call one of them image"),
])  # fmt: skip
def test_parquet_without_what_it_needs_is_one_clear_error(tmp_path, capsys, columns, words, message):
    path = write_parquet(tmp_path / "a.parquet", columns)
    assert convert_to(tmp_path / "out", f"parquet:{path}", *words) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_damaged_parquet_file_is_named(tmp_path, capsys):
    path = write_parquet(tmp_path / "a.parquet", {"image": [PICTURES[0]], "label": ["a"]})
    path.write_bytes(path.read_bytes()[:-50])
    assert convert_to(tmp_path / "out", f"parquet:{path}") == 1
    assert f"{path}: not a sound Parquet file" in capsys.readouterr().err


def test_appending_takes_the_rows_that_are_new(tmp_path, capsys):
    rows = [(PICTURES[number], f"{number}.jpg") for number in range(4)]
    write_parquet(tmp_path / "in/a.parquet", {"image": images(*rows), "label": ["a", "b", "a", "b"]})
    words = f"parquet:{tmp_path}/in", "--name=d"
    assert convert_to(tmp_path / "out", *words) == 0
    write_parquet(tmp_path / "in/b.parquet", {"image": images((PICTURES[4], "4.jpg")), "label": ["b"]})
    assert convert_to(tmp_path / "out", *words, "--append") == 0
    assert len(stored(tmp_path / "out")) == 5 and "train/b/4.jpg" in stored(tmp_path / "out")
    assert convert_to(tmp_path / "out", *words, "--append") == 0
    assert "nothing to append" in capsys.readouterr().out
    assert not (tmp_path / "out/.convert").exists()


def test_splits_are_made_and_the_plan_is_shown_without_writing(tmp_path):
    rows = [(PICTURES[number], f"{number}.jpg") for number in range(4)]
    path = write_parquet(tmp_path / "a.parquet", {"image": images(*rows), "label": ["a", "b", "a", "b"]})
    words = f"parquet:{path}", "--split=train:0.5,test:0.5", "--allow_missing_classes"
    assert convert_to(tmp_path / "out", *words, "--dry_run") == 0
    assert not (tmp_path / "out").exists()
    assert convert_to(tmp_path / "out", *words) == 0
    assert set(manifest.load(tmp_path / "out").splits) <= {"train", "test"}


@pytest.mark.parametrize("url, name", [
    ("tfds:mnist", "mnist"), ("tfds:mnist:train[:10%]", "mnist"), ("tfds:mnist:3.0.1:train", "mnist"),
    ("data/My Images.tar.gz", "my_images"), ("parquet:data/birds/*.parquet", "birds"),
    ("tar:s3://b/owls/a.tar", "owls"),
])  # fmt: skip
def test_a_data_set_is_named_after_its_source(url, name):
    assert planning.clean_name(opening.default_name(url)) == name


def test_splits_come_from_the_column_that_is_named_for_them(tmp_path):
    """A column of class numbers with names, and a JSON field; the labels are found as without it."""
    path = write_parquet(
        tmp_path / "part-00000-of-00001.parquet",
        {
            "image": images(*((data, None) for data in PICTURES[:4])),
            "label": list("abab"),
            "fold": [0, 1, 1, None],
        },
        {"fold": classes("train", "test")},
    )
    listing = folder.scan(
        f"parquet:{path}", allow_missing_classes=True,
        labels=LabelFileOptions(label_columns={"split": "fold"}),
    )  # fmt: skip
    assert listing.splits == ("test", "train") and listing.axes == {"category": ("a", "b")}
    assert listing.split.tolist().count(0) == 2 and len(listing) == 3  # the fourth row has no split
    members = [
        member
        for number, split in enumerate(("a part", "holdout", ""))
        for member in (
            (f"{number}.jpg", PICTURES[number]),
            (f"{number}.json", json.dumps({"label": number, "fold": split}).encode()),
        )
    ]
    path = write_tar(tmp_path / "train-000000.tar", members)
    splits = {
        split
        for split, _ in labels_of(
            f"tar:{path}", labels=LabelFileOptions(label_columns={"split": "fold", "category": "label"})
        ).values()
    }
    assert splits == {"a_part", "holdout"}


def test_flags_that_do_not_fit_the_source_are_usage_errors(tmp_path, capsys):
    path = write_parquet(tmp_path / "a.parquet", {"image": [PICTURES[0]], "label": ["a"]})
    assert convert_to(tmp_path / "out", f"parquet:{path}", "--layout={category}") == 2
    assert "remove --layout" in capsys.readouterr().err
    assert convert_to(tmp_path / "out", tmp_path, "--label_columns=category=kind") == 2
    assert convert_to(tmp_path / "out", f"parquet:{path}", "--label_columns=category") == 2
    assert convert_to(tmp_path / "out", f"parquet:{path}", "--label_columns=split=part") == 1
    assert "no column 'part' for split; its columns are image, label" in capsys.readouterr().err
    assert convert_to(tmp_path / "out", f"parquet:{path}", "--metadata=labels.csv") == 2
    assert "has its own labels" in capsys.readouterr().err
    with pytest.raises(UsageError, match="names nothing"):
        opening.describe("tar:")
    assert convert_to(tmp_path / "out", f"tar:{tmp_path}/no-*.tar") == 1
    assert "no such .tar file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_tfds_builder_is_made_and_its_images_are_kept_byte_for_byte(tmp_path, monkeypatch, capsys):
    import tensorflow_datasets as tfds

    class TinyPictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["ox", "ant"]),
                "filename": tfds.features.Text(),
            }  # fmt: skip
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples(range(4)), "test": self._generate_examples(range(4, 6))}

        def _generate_examples(self, numbers):
            for number in numbers:
                name = f"{number}.jpg"
                yield name, {"image": io.BytesIO(PICTURES[number]), "label": number % 2, "filename": name}

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    assert convert_to(tmp_path / "out", "tfds:tiny_pictures") == 0
    expected = {
        f"{'train' if number < 4 else 'test'}/{('ox', 'ant')[number % 2]}/{number}.jpg": (
            "train" if number < 4 else "test", {"category": number % 2}, PICTURES[number],
        )
        for number in range(6)
    }  # fmt: skip
    assert stored(tmp_path / "out") == expected
    prepared = tmp_path / "tfds/tiny_pictures/1.0.0"
    assert convert_to(tmp_path / "part", f"tfds:{prepared}:test", "--workers=2") == 0
    assert stored(tmp_path / "part") == {key: row for key, row in expected.items() if row[0] == "test"}
    words = "--label_columns=split=label,kind=filename", "--allow_missing_classes"
    assert convert_to(tmp_path / "by_label", f"tfds:{prepared}:test", *words) == 0
    assert {split for split, _, _ in stored(tmp_path / "by_label").values()} == {"ox", "ant"}
    assert convert_to(tmp_path / "x", "tfds:tiny_pictures:holdout") == 1
    assert "no split 'holdout'; it has test, train" in capsys.readouterr().err
    assert convert_to(tmp_path / "x", "tfds:no_such_data_set_at_all") == 1
    assert (
        convert_to(tmp_path / "again", f"tfds:{tmp_path}/out", "--name=tiny_pictures") == 0
    )  # our own shards
    assert stored(tmp_path / "again") == expected


def test_slices_share_the_copy_of_the_images_until_all_are_written(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        {"image": images(*((data, None) for data in PICTURES)), "label": list("ababab")},
    )
    words = f"parquet:{path}", "--num_shards=2", "--name=a"
    assert convert_to(tmp_path / "whole", *words) == 0
    for part in ("--slice=0/2", "--slice=1/2"):
        assert convert_to(tmp_path / "out", *words, part) == 0
        assert list(tmp_path.glob("out/.convert/images-*.bin"))
    assert convert_to(tmp_path / "out", *words) == 0
    assert folders.sums(tmp_path / "out") == folders.sums(tmp_path / "whole")
    assert not list(tmp_path.glob("out/.convert/images-*"))


def test_beam_on_many_machines_is_refused_for_images_that_were_copied_to_this_one(
    tmp_path, monkeypatch, capsys
):
    """A stand-in for Beam, which is not installed with the tests."""
    options = types.ModuleType("apache_beam.options.pipeline_options")
    options.PipelineOptions = options.SetupOptions = lambda words: None
    for name in ("apache_beam", "apache_beam.options"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, options.__name__, options)
    path = write_parquet(tmp_path / "a.parquet", {"image": PICTURES[:2], "label": ["a", "b"]})
    words = f"--input=parquet:{path}", "--output_dir=memory://bucket/beam", "--runner=beam"
    assert run_command(convert, *words) == 1
    assert "its images were copied to this machine" in capsys.readouterr().err
