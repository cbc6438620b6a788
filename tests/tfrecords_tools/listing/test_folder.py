import os
import pathlib
import sys
import textwrap
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import folders
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.folder import FolderEntry
from tfrecords_tools.listing import folder, layout
from tfrecords_tools.listing.choice import Choice
from tfrecords_tools.listing.label_file import LabelFileOptions
from tfrecords_tools.listing.layout import Layout
from tfrecords_tools.listing.table import Table
from tfrecords_tools.listing.walk import Walk


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
    """Files that are images by name only: listing does not open them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * (1 + len(name)))
    return root


DUEL = [f"{s}/{t}/{c}/1.jpg" for s in ("train", "validation") for t in ("real", "fake") for c in ("b", "a")]


def test_duel_layout_real_is_0_and_classes_are_sorted(tmp_path):
    listing = folder.scan(touch(tmp_path, *DUEL, "test/x.jpg"))
    assert listing.layout.template == "{split}/{authenticity}/{category}"
    assert listing.axes == {"authenticity": ("real", "fake"), "category": ("a", "b")}
    actual = folders.labels_of(listing)
    assert actual["train/fake/b/1.jpg"] == ("train", {"authenticity": 1, "category": 1})
    assert actual["validation/real/a/1.jpg"] == ("validation", {"authenticity": 0, "category": 0})
    assert actual["test/x.jpg"] == ("test", {"authenticity": -1, "category": -1})


@pytest.mark.parametrize(
    ("files", "template"),
    [
        (["train/a/1.jpg", "val/a/1.jpg"], "{split}/{category}"),
        (["a/1.jpg", "b/1.jpg"], "{category}"),
        (["real/1.jpg", "fake/1.jpg"], "{authenticity}"),
        (["REAL/1.jpg", "FAKE/1.jpg"], "{authenticity}"),
        (["real/a/1.jpg", "fake/a/1.jpg"], "{authenticity}/{category}"),
        (["train/a/real/1.jpg", "train/a/fake/1.jpg"], "{split}/{category}/{authenticity}"),
        (["test/1.jpg", "train/2.jpg"], "{split}"),
        (["1.jpg"], ""),
        (["archive/train/a/1.jpg", "archive/val/a/1.jpg"], "*/{split}/{category}"),
        (["data/raw/a/1.jpg", "data/raw/b/1.jpg"], "*/*/{category}"),
        (["images/1.jpg"], "{category}"),
        (["Train/a/1.jpg", "Valid/a/1.jpg", "TEST/a/1.jpg"], "{split}/{category}"),
        (["seg_train/seg_train/sea/1.jpg", "seg_train/seg_train/ice/1.jpg", "seg_test/seg_test/sea/1.jpg"],
         "{split}/*/{category}"),
        (["trainingSet/trainingSet/0/1.jpg", "trainingSet/trainingSet/1/1.jpg", "testSet/testSet/1.jpg"],
         "{split}/*/{category}"),
        (["train/n01/images/1.jpg", "train/n02/images/1.jpg"], "{split}/{category}"),
        (["freight_train/1.jpg", "cargo_ship/1.jpg"], "{category}"),
    ],
)  # fmt: skip
def test_layouts_are_detected(files, template):
    counts = {tuple(file.split("/")[:-1]): 1 for file in files}
    assert layout.detect(counts).template == template


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a/1.jpg", "cats/1.jpg"], "train look like splits and cats do not"),
        (["a/x/1.jpg", "b/y/1.jpg"], "levels a, b / x, y could mean .*--layout='{split}/{category}'"),
        (["train/a/1.jpg", "train/a/x/1.jpg"], "lie at different depths, in a and in a/x"),
    ],
)
def test_a_layout_that_could_be_several_is_an_error(files, message):
    with pytest.raises(DataError, match=message):
        layout.detect({tuple(file.split("/")[:-1]): 1 for file in files})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{split}/{split}", "occurs twice"),
        ("{image}", "cannot be a label axis"),
        ("x{category}/{split}", "is not {name}, \\* or a plain directory name"),
    ],
)
def test_a_template_checks_itself(template, message):
    with pytest.raises(UsageError, match=message):
        Layout(template)


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=8
)


@given(
    data=st.data(),
    axes=st.lists(st.sampled_from(["split", "authenticity", "category", "a", "b"]), unique=True),
)
def test_a_template_gives_back_what_a_path_was_made_of(data, axes):
    values = {axis: data.draw(NAMES) for axis in axes}
    deeper = data.draw(st.lists(NAMES, max_size=2))
    template = Layout("/".join(f"{{{axis}}}" for axis in axes))
    assert template.match((*(values[axis] for axis in axes), *deeper)) == values
    assert set(template.axes) == set(axes) - {"split"}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.binary(min_size=1, max_size=12).filter(lambda n: b"/" not in n and b"\0" not in n),
                      min_size=1, max_size=6, unique=True))  # fmt: skip
def test_any_file_name_is_a_key(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    (root / "cats").mkdir()
    written = set()
    for name in names:
        key = b"cats/a" + name + b".jpg"
        (root / os.fsdecode(key)).write_bytes(b"x")
        written.add(key)
    listing = folder.scan(root)
    assert {example.key for example in listing.examples()} == written


def test_explicit_layouts_take_fixed_names_and_any(tmp_path):
    touch(tmp_path, "images/s1/cats/1.jpg", "images/s2/dogs/1.jpg", "masks/s1/cats/1.jpg")
    listing = folder.scan(tmp_path, layout="images/*/{animal}")
    assert listing.axes == {"animal": ("cats", "dogs")}
    assert listing.rejected == [(b"masks/s1/cats/1.jpg", "outside the layout images/*/{animal}")]


def test_a_layout_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no image fits --layout=x/\{category\}; the first one is a/1.jpg"):
        folder.scan(touch(tmp_path, "a/1.jpg"), layout="x/{category}")


def test_what_is_no_image_is_listed_and_never_silently_dropped(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg", "a/notes.txt", "a/.hidden.jpg", "Thumbs.db")
    (tmp_path / "a" / "folder.jpg").mkdir()
    (tmp_path / "a" / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "a" / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    listing = folder.scan(tmp_path)
    assert len(listing) == 2
    assert dict(listing.rejected) == {
        b"a/folder.jpg": "a directory named like an image; not looked into",
        b"a/broken.jpg": "broken link: No such file or directory",
        b"a/self.jpg": "link loop",
        b"a/loop": "link loop: the directory contains itself",
        b"a/pipe.jpg": "not a regular file",
    }
    assert dict(listing.skipped) == {
        b"a/notes.txt": "not an image by its name (.txt) and its first bytes",
        b"a/.hidden.jpg": "a hidden or system file",
        b"Thumbs.db": "a hidden or system file",
    }


def test_links_to_images_and_directories_are_followed(tmp_path):
    touch(tmp_path, "store/1.jpg")
    (tmp_path / "in" / "cats").mkdir(parents=True)
    (tmp_path / "in" / "cats" / "link.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    (tmp_path / "in" / "dogs").symlink_to(tmp_path / "store")
    listing = folder.scan(tmp_path / "in")
    assert set(folders.labels_of(listing)) == {"cats/link.jpg", "dogs/1.jpg"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "the folder is empty"),
        (["a/1.txt"], r"no images in it, only 1 other file, such as a/1.txt"),
        (["1.jpg"], "no image has a label; put images .* or pass --layout='{category}_"),
        (["1.jpg", "my labels.csv"], "no image has a label; .* or pass '--metadata=my labels.csv'"),
        (["a/1.jpg", "b/1.txt", "b/2.txt"], "the directory b has only 2 other files, such as b/1.txt"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"], "split 'val' has no image of category 'b'"),
        (["train/real/a/1.jpg"], "split 'train' has no image of authenticity 'fake'"),
        (["val-1/a/1.jpg", "val_1/a/1.jpg"], "both be stored as 'val_1'"),
    ],
)
def test_bad_folders_are_named(tmp_path, files, message):
    template = "{split}/{category}" if "val-1" in str(files) else None
    with pytest.raises(DataError, match=message):
        folder.scan(touch(tmp_path, *files), layout=template)


def test_a_missing_folder_and_an_allowed_missing_class(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        folder.scan(tmp_path / "nowhere")
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg")
    assert len(folder.scan(tmp_path, allow_missing_classes=True)) == 3


def metadata(root: pathlib.Path, text: str) -> pathlib.Path:
    (root / "metadata.csv").write_text(textwrap.dedent(text).lstrip())
    return root


def test_metadata_that_agrees_is_silent(tmp_path):
    rows = "".join(f"{path},{int('fake' in path)},{path.split('/')[2]}\n" for path in DUEL)
    listing = folder.scan(metadata(touch(tmp_path, *DUEL, "test/1.jpg"), "image_path,label,class\n" + rows))
    assert len(listing) == 9 and not listing.rejected and not listing.skipped


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_path,label\ntrain/real/a/1.jpg,1\n",
         "row 2 says 'train/real/a/1.jpg' is 'fake' .authenticity., but its directory says 'real'"),
        ("image_path,class\ntrain/real/a/1.jpg,a\ntrain/fake/a/1.jpg,b\n", "row 3 says .* is 'b' .category."),
        ("image_path,class\ntrain/real/a/2.jpg,a\n", "row 2 names 'train/real/a/2.jpg', but .* no such"),
        ("image_path,label\ntrain/real/a/1.jpg,cat\n", "row 2: 'cat' is not an authenticity label"),
        ("image_path,label\ntrain/real/a/1.jpg\n", "row 2 has 1 fields, but the header has 2"),
        ("image_path,label\n" + "train/real/a/1.jpg,0\n" * 2, "row 3 names .* a second time"),
        ("name,label\nx,0\n", "no column image_path or"),
    ],
)  # fmt: skip
def test_metadata_that_contradicts_names_the_row(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        folder.scan(metadata(touch(tmp_path, *DUEL), text))
    assert len(folder.scan(tmp_path, labels=LabelFileOptions(file=""))) == 8  # told not to read it


def test_metadata_supplies_labels_and_splits_where_folders_have_none(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    metadata(tmp_path, """
        image,label,class,split
        1.jpg,0,cats,train
        2.jpg,1,dogs,train
        3.jpg,,,test
        """)  # fmt: skip
    listing = folder.scan(tmp_path)
    assert folders.labels_of(listing) == {
        "1.jpg": ("train", {"authenticity": 0, "category": 0}),
        "2.jpg": ("train", {"authenticity": 1, "category": 1}),
        "3.jpg": ("test", {"authenticity": -1, "category": -1}),
    }


def test_metadata_that_labels_only_some_images_is_an_error(tmp_path):
    metadata(touch(tmp_path, "1.jpg", "2.jpg"), "path,class\n1.jpg,cats\n")
    with pytest.raises(DataError, match="2.jpg has no category: there is no row for it"):
        folder.scan(tmp_path)


def test_a_named_metadata_file_must_be_there(tmp_path):
    with pytest.raises(DataError, match=r"labels.csv: there is no such file"):
        folder.scan(touch(tmp_path, "a/1.jpg"), labels=LabelFileOptions(file="labels.csv"))


def test_the_order_of_writing_is_a_pure_function_of_key_and_seed():
    assert records.order_hash(b"train/real/cats/1.jpg", 0) == 17878011004497038233
    assert records.order_hash(b"train/real/cats/1.jpg", 1) == 6844788318350956607


def test_the_fingerprint_sees_names_sizes_labels_and_nothing_else(tmp_path):
    first = folder.scan(touch(tmp_path / "1", "a/1.jpg", "b/2.jpg")).fingerprint()
    os.utime(touch(tmp_path / "2", "b/2.jpg", "a/1.jpg") / "a/1.jpg", (0, 0))
    assert folder.scan(tmp_path / "2").fingerprint() == first
    (tmp_path / "2" / "a" / "1.jpg").write_bytes(b"longer" * 9)
    assert folder.scan(tmp_path / "2").fingerprint() != first
    assert folder.scan(touch(tmp_path / "3", "a/1.jpg", "c/2.jpg")).fingerprint() != first


MILLION = """
import resource, sys
from tfrecords_tools.listing import folder
from tfrecords_tools.writing import planning
from tfrecords_tools.format import storage
from tfrecords_tools.format.folder import FolderEntry
class Many:
    def __init__(self, root): self.root = root
    def exists(self): return True
    def size(self, name): return None
    def walk(self):
        for c in range(100):
            for i in range(10_000):
                yield FolderEntry(b"train/class_%d/image_of_a_longer_name_%07d.jpg" % (c, i), 15_000, "")
def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = used()
storage.open_folder = Many
listing = folder.scan("many")
plan = planning.plan(listing, planning.Options("many"))
jobs = plan.jobs(set(plan.files))
assert sum(len(next(jobs).images) for _ in range(5)) > 40_000
print(len(listing), len(plan.files), used() - before)
"""


@pytest.mark.slow
@pytest.mark.scale
def test_a_million_paths_are_planned_in_less_than_500_mb():
    import subprocess

    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    images, shards, megabytes = done.stdout.split()
    assert (images, shards) == ("1000000", "118")
    assert float(megabytes) < 500, done.stdout


def test_progress_is_told_while_listing(tmp_path, monkeypatch):
    class Many(storage.Local):
        def walk(self):
            return (FolderEntry(b"a/%d.jpg" % number, 1, "") for number in range(12_000))

    monkeypatch.setattr(storage, "open_folder", Many)
    reported = []
    folder.scan(tmp_path, on_progress=reported.append)
    assert reported == [5_000, 10_000]


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["Cats", "cats"], True),
        (["great dane", "great_dane"], True),
        (["caf\u00e9", "cafe\u0301"], True),
        (["cats ", "cats"], True),
        (["cat", "cats"], False),
        (["c1", "c11"], False),
    ],
)
def test_class_names_that_differ_little_are_pointed_out(tmp_path, names, alike):
    listing = folder.scan(touch(tmp_path, *(f"{name}/1.jpg" for name in names)))
    assert len(listing.axes["category"]) == 2
    assert [note.startswith("warning: category has ") for note in listing.notes] == [True] * alike


def test_a_listing_of_many_classes_takes_time_that_grows_with_their_number():
    class Classes(storage.Local):
        def walk(self):
            for number in range(40_000):
                yield FolderEntry(b"id_%06d/a.jpg" % number, 1, "")

    start = time.process_time()
    walk = Walk(Classes("."), "", 0, Choice(), lambda count: None)
    listing = Table(walk, layout.detect(walk.counts()), ".").finish()
    assert len(listing.axes["category"]) == 40_000 and int(listing.labels.max()) == 39_999
    assert time.process_time() - start < 10  # a second or so; the quadratic loop took half a minute


def test_a_class_that_is_missing_in_a_split_is_named_with_its_similar_name(tmp_path):
    root = folders.make(tmp_path, {"train/Big Cats": 1, "train/dogs": 1, "test/big-cats": 1, "test/dogs": 1})
    with pytest.raises(DataError) as caught:
        folder.scan(str(root))
    assert (
        "split 'test' has no image of category 'Big Cats'; 'Big Cats' and 'big-cats' differ only in case, "
        "spaces, hyphens or Unicode form, so make them one class with '--merge=big-cats:Big Cats', or pass"
    ) in str(caught.value)


@pytest.mark.parametrize("name", ["photo.jpg", "images.rar"])
def test_a_file_that_is_no_archive_is_said_to_be_one(tmp_path, name):
    (tmp_path / name).write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"a file, and no folder or archive that is read \(\.zip, .*unpack"):
        folder.scan(str(tmp_path / name))
