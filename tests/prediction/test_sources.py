import os

import pytest

from deepduel.decoding.image import DecodeOptions
from deepduel.prediction.sources import Files
from tests.helpers import folders
from tfrecords_tools.errors import DataError


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
