import os

import numpy as np
import pytest
from PIL import Image

from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
from deepduel.prediction import pictures
from deepduel.prediction.sources import Files, Shards
from tests.helpers import folders, odd_images
from tests.helpers.conversions import convert_to
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest
from tfrecords_tools.images.encoding_options import EncodingOptions
from tfrecords_tools.images.rgb import PixelOptions


def test_hidden_and_system_directories_are_passed_over(tmp_path):
    images = folders.make(tmp_path, {"a": 2, ".ipynb_checkpoints": 1, "a/__MACOSX": 1})
    (images / "a" / "notes.txt").write_text("no image")
    os.rename(images / "a" / "1.jpg", images / "a" / "1.jpg_large")  # noqa: PTH104, shorter on one line
    source = Files([str(images)], DecodeOptions((8, 8)), threads=1)
    assert [source.name(number) for number in range(len(source))] == ["a/0.jpg", "a/1.jpg_large"]
    assert source.system == [b".ipynb_checkpoints/", b"a/__MACOSX/"]
    assert source.rejected == [("a/notes.txt", "not an image by its name (.txt) and its first bytes")]


def test_a_folder_of_hidden_directories_alone_has_no_images(tmp_path):
    with pytest.raises(DataError, match="there are no images there"):
        Files([str(folders.make(tmp_path, {".cache": 1}))], DecodeOptions((8, 8)), threads=1)


@pytest.mark.parametrize("size", [(16, 16), (400, 600)])
def test_turned_photographs_give_the_same_pixels_as_files_and_as_records(tmp_path, size):
    images = folders.make(tmp_path / "images", {"train/a": 0, "train/b": 1})
    for name, (data, _) in odd_images.turned().items():
        (images / "train/a" / name).write_bytes(data)
    large = odd_images.picture(400, 600).resize((600, 400))
    coded = odd_images.save(large, "JPEG", exif=odd_images.exif(6))
    (images / "train/a" / "large.jpg").write_bytes(coded)
    (images / "train/a" / "cut.jpg").write_bytes(coded[:-300])
    assert convert_to(tmp_path / "shards", images, "--max_rejected=0.5") == 0
    files = Files([str(images)], DecodeOptions(size), threads=1)
    shards = Shards(Split(tmp_path / "shards", "train"), DecodeOptions(size), threads=1)
    from_files, reasons = files.read(np.arange(len(files)), len(files))
    from_shards, _ = shards.read(np.arange(len(shards)), len(shards))
    assert [files.name(number) for number, reason in enumerate(reasons) if reason] == ["train/a/cut.jpg"]
    sound = [number for number, reason in enumerate(reasons) if not reason]
    assert [files.name(number) for number in sound] == [shards.name(number) for number in range(len(shards))]
    np.testing.assert_array_equal(from_files[sound], from_shards)


@pytest.mark.parametrize(
    "words",
    [
        ("--alpha=white", "--depth=0:4095", "--damaged=accept"),
        ("--encoding=jpeg", "--image_size=24", "--quality=40", "--alpha=#80ff00"),
        ("--encoding=raw", "--image_size=24", "--fit=pad", "--max_pixels=2000"),
    ],
)
def test_files_give_the_pixels_of_their_conversion_whatever_its_options(tmp_path, words):
    images = folders.make(tmp_path / "images", {"train/a": 3, "train/b": 1})
    picture = odd_images.picture(40, 30)
    transparent = picture.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    for name, data in {
        "turned.jpg": odd_images.save(picture, "JPEG", exif=odd_images.exif(6)),
        "transparent.png": odd_images.save(transparent, "PNG"),
        "deep.png": odd_images.save(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "PNG"),
        "no_end.jpg": odd_images.save(picture, "JPEG")[:-2],
        "large.png": odd_images.save(odd_images.picture(80, 60), "PNG"),
    }.items():
        (images / "train/a" / name).write_bytes(data)
    assert convert_to(tmp_path / "shards", images, "--max_rejected=0.9", *words) == 0
    encoding = EncodingOptions.recorded(manifest.load(tmp_path / "shards").options)
    decoding = DecodeOptions((16, 16))
    files = Files([str(images)], decoding, encoding=encoding, threads=1)
    shards = Shards(Split(tmp_path / "shards", "train"), decoding, threads=1)
    from_files, reasons = files.read(np.arange(len(files)), len(files))
    from_shards, _ = shards.read(np.arange(len(shards)), len(shards))
    sound = [number for number, reason in enumerate(reasons) if not reason]
    assert [files.name(number) for number in sound] == [shards.name(number) for number in range(len(shards))]
    np.testing.assert_array_equal(from_files[sound], from_shards)


def test_pictures_in_memory_give_the_pixels_of_their_conversion():
    encoding = EncodingOptions("png", image_size=24, fit="pad", pixels=PixelOptions(alpha="white"))
    picture = odd_images.picture(40, 30).convert("RGBA")
    picture.putalpha(0)
    source = pictures.Pictures(
        [picture, np.asarray(picture)[..., :3]], DecodeOptions((24, 24)), encoding=encoding
    )
    transparent, opaque = source.read(np.arange(2), 2)[0]
    assert (transparent[:, 12] == 255).all() and not transparent[:, 0].any()  # white between black borders
    assert (opaque[:, 12] != transparent[:, 12]).any() and not opaque[:, 0].any()
