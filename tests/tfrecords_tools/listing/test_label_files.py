import pytest

from tests.helpers import folders
from tests.helpers.conversions import convert_to
from tests.tfrecords_tools.listing.test_folder import touch
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.listing import folder
from tfrecords_tools.listing.label_file import LabelFileOptions


def labels(root, **options):
    """key -> (split, names of the labels) of a folder, and the notes."""
    listing = folder.scan(root, labels=LabelFileOptions(**options), allow_missing_classes=True)
    names = {}
    for example in listing.examples():
        label_names = {
            axis: listing.axes[axis][label] if label >= 0 else "" for axis, label in example.labels.items()
        }
        names[example.key.decode()] = example.split, label_names
    return names, listing.notes


def written(root, text, name="metadata.csv", encoding="utf-8"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode(encoding))
    return root


def test_the_file_labels_images_whose_directory_is_no_label(tmp_path):
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    actual, _ = labels(written(tmp_path, "image_path,class\nimages/1.jpg,a\nimages/2.jpg,b\n"))
    assert actual == {f"images/{n}.jpg": ("train", {"category": name}) for n, name in ((1, "a"), (2, "b"))}


def test_directories_of_parts_are_no_labels_either(tmp_path):
    touch(tmp_path, "part_1/1.jpg", "part_2/2.jpg")
    actual, _ = labels(written(tmp_path, "path,class\npart_1/1.jpg,a\npart_2/2.jpg,b\n"))
    assert [names["category"] for _, names in actual.values()] == ["a", "b"]


def test_a_file_in_each_split_is_read_as_hugging_face_reads_it(tmp_path):
    touch(tmp_path, "train/1.jpg", "train/2.jpg", "test/1.jpg")
    written(tmp_path, "file_name,class\n1.jpg,a\n2.jpg,b\n", "train/metadata.csv")
    actual, _ = labels(written(tmp_path, "file_name,class\n1.jpg,b\n", "test/metadata.csv"))
    assert actual["test/1.jpg"] == ("test", {"category": "b"})
    assert actual["train/1.jpg"] == ("train", {"category": "a"})


def test_a_file_labels_the_split_whose_directories_do_not(tmp_path):
    touch(tmp_path, "train/cats/1.jpg", "train/dogs/1.jpg", "test/1.jpg", "test/2.jpg")
    found, _ = labels(written(tmp_path, "file_name,class\n1.jpg,dogs\n2.jpg,cats\n", "test/metadata.csv"))
    assert [found[f"test/{n}.jpg"][1] for n in (1, 2)] == [{"category": "dogs"}, {"category": "cats"}]
    assert found["train/cats/1.jpg"] == ("train", {"category": "cats"})
    with pytest.raises(DataError, match="test/2.jpg has no category: there is no row for it"):
        labels(written(tmp_path, "file_name,class\n1.jpg,dogs\n", "test/metadata.csv"))


def test_a_path_may_begin_with_the_folder_itself(tmp_path):
    images = folders.make(tmp_path / "in", {"": 2})
    written(images, "path,class\n./0.jpg,a\n1.jpg,b\n", "labels.csv")
    assert convert_to(tmp_path / "out", images, "--metadata=./labels.csv", "--base_dir=.") == 0


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("path,label\n1.jpg,0\n2.jpg,1\n", {"category": ("0", "1")}),
        ("path,label\n1.jpg,cat\n2.jpg,dog\n", {"category": ("cat", "dog")}),
        ("path,label\n1.jpg,real\n2.jpg,fake\n", {"authenticity": ("real", "fake")}),
        (
            "path,label,class\n1.jpg,0,a\n2.jpg,1,b\n",
            {"authenticity": ("real", "fake"), "category": ("a", "b")},
        ),
    ],
)
def test_a_label_of_0_or_1_is_real_or_fake_only_where_something_else_says_so(tmp_path, text, axes):
    listing = folder.scan(written(touch(tmp_path, "1.jpg", "2.jpg"), text))
    assert listing.axes == axes
    assert bool(listing.notes) == ("0" in axes.get("category", ()))
    assert all("--label_columns=authenticity=label" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("directories", "labels_of_two", "axes"),
    [
        (("images", "images"), "01", {"category": ("0", "1")}),
        (("a", "b"), "ab", {"category": ("a", "b")}),
        (("a", "b"), "xy", {"category": ("a", "b"), "label": ("x", "y")}),
    ],
)
def test_a_column_label_is_the_category_unless_directories_are_other_classes(
    tmp_path, directories, labels_of_two, axes
):
    paths = [f"{directory}/{number}.jpg" for number, directory in enumerate(directories)]
    rows = "".join(f"{path},{label}\n" for path, label in zip(paths, labels_of_two, strict=True))
    listing = folder.scan(written(touch(tmp_path, *paths), "path,label\n" + rows))
    assert listing.axes == axes
    assert ("--label_columns=category=label" in "".join(listing.notes)) == ("label" in axes)


def test_0_and_1_are_real_and_fake_when_the_flag_says_so(tmp_path):
    written(touch(tmp_path, "1.jpg", "2.jpg"), "path,label\n1.jpg,0\n2.jpg,1\n")
    actual, notes = labels(tmp_path, label_columns={"authenticity": "label"})
    assert [names for _, names in actual.values()] == [{"authenticity": "real"}, {"authenticity": "fake"}]
    assert not notes


def test_a_class_name_that_is_not_utf_8_is_refused_before_any_work(tmp_path, capsys):
    images = folders.make(tmp_path / "in", {"": 2})
    written(images, "image_path,class\n0.jpg,a\n1.jpg,böuf\n", encoding="latin-1")
    assert convert_to(tmp_path / "out", images) == 1
    error = capsys.readouterr().err
    assert (
        "row 3, column 'class': b'b\\xf6uf' is not UTF-8" in error and "--metadata_encoding=cp1252" in error
    )
    assert not (tmp_path / "out").exists()
    assert convert_to(tmp_path / "out", images, "--metadata_encoding=latin-1") == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_that_marks_its_encoding_needs_no_flag(tmp_path, encoding):
    written(touch(tmp_path, "1.jpg", "2.jpg"), "path,class\n1.jpg,gans\n2.jpg,böuf\n", encoding=encoding)
    assert folder.scan(tmp_path).axes == {"category": ("böuf", "gans")}


def test_a_mark_is_no_part_of_the_first_column_where_the_encoding_is_named(tmp_path):
    written(touch(tmp_path, "1.jpg", "2.jpg"), "path,class\n1.jpg,a\n2.jpg,b\n", encoding="utf-8-sig")
    assert folder.scan(tmp_path, labels=LabelFileOptions(encoding="utf-8")).axes == {"category": ("a", "b")}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("path,class\n1.jpg,a".encode("utf-16")[:-1], r"row 2 has bytes that are not utf-16"),
        (b"path," + b"x" * 200_000, "its header is not valid CSV .field larger"),
    ],
    ids=["cut_off", "no_table"],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, data, message):
    (touch(tmp_path, "1.jpg") / "metadata.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        folder.scan(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "error", "message"),
    [
        ("klingon", UsageError, "there is no such encoding"),
        ("ascii", DataError, r"row 3 has bytes that are not ascii"),
    ],
)
def test_a_wrong_encoding_is_named(tmp_path, encoding, error, message):
    written(touch(tmp_path, "1.jpg", "2.jpg"), "path,class\n1.jpg,gans\n2.jpg,böuf\n")
    with pytest.raises(error, match=message):
        folder.scan(tmp_path, labels=LabelFileOptions(encoding=encoding))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path, delimiter):
    rows = (("name, of a file", "path", "class"), ('"x, y"', "1.jpg", "a"), ("", "2.jpg", "b"))
    text = "\n".join(
        delimiter.join(row if delimiter != "," else (row[0].replace(", ", " "), *row[1:])) for row in rows
    )
    assert folder.scan(written(touch(tmp_path, "1.jpg", "2.jpg"), text)).axes == {"category": ("a", "b")}


@pytest.mark.parametrize("text", ["a/1.jpg 3\na/2.jpg 10\n", "a/1.jpg,3\na/2.jpg,10\n"])
def test_a_list_without_a_header_has_columns_of_numbers(tmp_path, text):
    written(touch(tmp_path, "a/1.jpg", "a/2.jpg"), text, "train.txt")
    actual, _ = labels(tmp_path, file="train.txt", path_column="0", label_columns={"category": "1"})
    assert [names["category"] for _, names in actual.values()] == ["3", "10"]


def test_ids_without_ending_in_a_directory_of_their_own(tmp_path):
    touch(tmp_path, "train/000b.jpg", "train/00f1.jpg", "test/1.jpg")
    written(tmp_path, "id,breed\n000b,pug\n00f1,beagle\n", "labels.csv")
    options = {"file": "labels.csv", "path_column": "id", "label_columns": {"category": "breed"}}
    actual, _ = labels(tmp_path, **options, base_dir="train", path_suffix=".jpg")
    assert actual["train/000b.jpg"] == ("train", {"category": "pug"})
    assert actual["test/1.jpg"] == ("test", {"category": ""})
    with pytest.raises(DataError, match="pass --base_dir=train and --path_suffix=.jpg"):
        labels(tmp_path, **options)
    with pytest.raises(DataError, match="pass --path_suffix=.jpg"):
        labels(tmp_path, **options, base_dir="train")


def test_labels_of_named_columns_replace_those_of_directories(tmp_path):
    touch(tmp_path, "train/x/1.jpg", "train/y/2.jpg")
    written(tmp_path, "path,breed,colour\ntrain/x/1.jpg,pug,\ntrain/y/2.jpg,beagle,red\n")
    actual, _ = labels(tmp_path, label_columns={"category": "breed", "colour": "colour"})
    assert actual == {
        "train/x/1.jpg": ("train", {"category": "pug", "colour": ""}),
        "train/y/2.jpg": ("train", {"category": "beagle", "colour": "red"}),
    }


def test_rows_without_image_and_images_without_row_are_passed_over_when_asked(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    written(tmp_path, "path,class\n1.jpg,a\n3.jpg,b\n4.jpg,b\n")
    actual, notes = labels(tmp_path, missing="skip")
    assert list(actual) == ["1.jpg", "3.jpg"]
    assert notes == [f"{tmp_path}/metadata.csv: passed over 1 row without an image and 1 image without a row"]


def test_an_unknown_column_names_those_that_exist(tmp_path):
    written(touch(tmp_path, "1.jpg"), "path,class\n1.jpg,a\n")
    with pytest.raises(DataError, match=r"no column 'breed'; its columns are \['path', 'class'\]"):
        labels(tmp_path, label_columns={"category": "breed"})
    with pytest.raises(UsageError, match="both numbers"):
        LabelFileOptions(path_column="0", label_columns={"category": "class"})


def test_flags_for_a_file_that_does_not_exist_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no metadata.csv for --path_column, --label_columns"):
        labels(touch(tmp_path, "a/1.jpg"), path_suffix=".jpg")
