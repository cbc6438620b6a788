import pytest

from tests.helpers import folders, odd_images
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest, storage
from tfrecords_tools.listing import candidates, folder
from tfrecords_tools.listing.candidates import Kind

PICTURE = odd_images.save(odd_images.picture(), "JPEG")


def kinds(root) -> dict[str, Kind]:
    return {
        candidate.entry.key.decode(): candidate.kind
        for candidate in candidates.walk(storage.open_folder(root))
    }


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "lost+found", "$RECYCLE.BIN"]
)
def test_a_system_directory_is_passed_over_beside_and_inside_classes(tmp_path, capsys, name):
    images = folders.make(tmp_path / "images", {"cats": 2, "dogs": 2, name: 1, f"cats/{name}": 1})
    assert convert_to(tmp_path / "out", images) == 0
    whole = manifest.load(tmp_path / "out")
    assert whole.axes == {"category": ("cats", "dogs")} and whole.splits["train"].records == 4
    line = f"passed over 2 hidden or system directories: {', '.join(sorted((name, f'cats/{name}')))}\n"
    assert line in capsys.readouterr().out
    assert (whole.rejected, whole.skipped) == (0, 2)


def test_the_walk_of_any_source_passes_over_what_lies_in_a_system_directory():
    class Archive(storage.Local):
        def walk(self):
            for key in (b"__MACOSX/1.jpg", b"__MACOSX/a/2.jpg", b"a/1.jpg", b"__MACOSX/3.jpg", b"a/.x/1.jpg"):
                yield storage.FolderEntry(key, 1, "")

    actual = [(one.entry.key, one.kind) for one in candidates.walk(Archive("."))]
    assert actual == [(b"__MACOSX/", Kind.SYSTEM), (b"a/1.jpg", Kind.IMAGE), (b"a/.x/", Kind.SYSTEM)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.jpg_large", PICTURE),
        ("v1.2_final", PICTURE),
        ("no_ending", odd_images.save(odd_images.picture(), "PNG")),
        ("photo.jpg~", PICTURE),
        ("map.dat", odd_images.save(odd_images.picture(), "BMP")),
        ("a.txt", odd_images.save(odd_images.picture(), "WEBP")),
        ("b.bin", odd_images.save(odd_images.picture(), "TIFF")),
        ("c.image", odd_images.save(odd_images.picture(), "PPM")),
    ],
)
def test_the_first_bytes_decide_and_not_the_name(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert kinds(tmp_path) == {name: Kind.IMAGE}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("README", b"Python, and BMP files"),
        ("notes.txt", b"BM is how a bitmap begins"),
        ("list", b"P1 and P2 are the first parts"),
        ("empty", b""),
        ("table.csv", b"image_path,class\n"),
        ("IMG_1.CR2", b"II*\0\x10\0\0\0CR"),
        ("._1.jpg", PICTURE),
    ],
)
def test_other_files_are_left_out_and_are_no_rejected_images(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert kinds(tmp_path) == {name: Kind.SKIPPED}


def test_files_left_out_are_counted_apart_from_rejected_images(tmp_path, capsys):
    images = folders.make(tmp_path / "images", {"cats": 40, "dogs": 40})
    for number in range(5):
        (images / "cats" / f"{number}.txt").write_text("a caption")
    (images / "cats" / "cut.jpg").write_bytes(PICTURE[:300])
    assert convert_to(tmp_path / "out", images, "--max_rejected=0.02") == 0
    out = capsys.readouterr().out
    assert f"rejected images: 1, see {tmp_path}/out/rejected.csv" in out
    assert f"files left out: 5, see {tmp_path}/out/skipped.csv" in out
    rejected, skipped = (
        (tmp_path / "out" / f"{name}.csv").read_text().splitlines() for name in ("rejected", "skipped")
    )
    assert len(rejected) == 2 and rejected[1].startswith("cats/cut.jpg,damaged")
    assert skipped[1] == "cats/0.txt,not an image by its name (.txt) and its first bytes"


def test_a_class_saved_under_an_odd_ending_is_whole(tmp_path):
    images = folders.make(tmp_path / "images", {"cats": 3, "owls": 3})
    for path in (images / "owls").iterdir():
        path.rename(path.with_suffix(".jpg_large"))
    assert convert_to(tmp_path / "out", images) == 0
    labels = [labels["category"] for _, labels, _ in stored(tmp_path / "out").values()]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("empty", [False, True])
def test_a_class_directory_without_images_is_an_error(tmp_path, empty):
    folders.make(tmp_path, {"train/cats": 1, "train/dogs": 1})
    (tmp_path / "train" / "owls").mkdir()
    what = "is empty; add images"
    if not empty:
        (tmp_path / "train" / "owls" / "1.txt").write_text("no picture")
        what = "train/owls/1.txt"
    with pytest.raises(DataError, match=rf"category 'owls' has no images: the directory train/owls .*{what}"):
        folder.scan(tmp_path)
    assert folder.scan(tmp_path, allow_missing_classes=True).axes == {"category": ("cats", "dogs")}
