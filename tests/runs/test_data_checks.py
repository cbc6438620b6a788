from deepduel.decoding.split import Split
from deepduel.runs import data_checks
from tests.helpers import folders
from tests.helpers.conversions import convert_to


def test_a_class_without_images_is_named(tmp_path):
    counts = {"train/cats": 2, "train/dogs": 2, "validation/cats": 2, "validation/birds": 2}
    images = folders.make(tmp_path / "images", counts)
    assert convert_to(tmp_path / "shards", images, "--allow_missing_classes") == 0
    missing = {}
    for name in ("train", "validation"):
        split = Split(tmp_path / "shards", name)
        (axis,) = split.manifest.axes
        missing[name] = data_checks.classes_without_images(split, axis)
    assert missing == {"train": ["birds"], "validation": ["dogs"]}
