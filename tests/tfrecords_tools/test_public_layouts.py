"""Layouts of data sets that people download, a few invented images each, with the flags that they need."""

from tests.helpers import folders
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools.format import manifest


def counts(data_dir) -> dict[str, dict[str, int]]:
    return {name: split.cells for name, split in manifest.load(data_dir).splits.items()}


def test_digits_as_classes_in_a_directory_of_the_splits_name(tmp_path):
    """MNIST as JPEG: trainingSet/trainingSet/7/img_1.jpg, testSet/testSet/img_1.jpg without labels."""
    digits = {f"trainingSet/trainingSet/{digit}": 2 for digit in range(11)}
    images = folders.make(tmp_path / "in", digits | {"testSet/testSet": 3}, size=8)
    assert convert_to(tmp_path / "out", images, "--class_order=natural") == 0
    assert manifest.load(tmp_path / "out").axes["category"] == tuple(map(str, range(11)))
    assert counts(tmp_path / "out") == {"testSet": {"?": 3}, "trainingSet": {str(n): 2 for n in range(11)}}


def test_two_levels_of_classes_and_a_third_directory_beside_the_splits(tmp_path):
    """Train/Animal/cat/1.jpg, Test/Animal/cat/1.jpg, and Predict/1.jpg, which is no split of the two."""
    classes = [f"{kind}/{name}" for kind, name in (("Animal", "cat"), ("Animal", "dog"), ("Plant", "oak"))]
    images = folders.make(
        tmp_path / "in", {f"{split}/{name}": 2 for split in ("Train", "Test") for name in classes}
    )
    folders.make(images, {"Predict": 2})
    assert convert_to(tmp_path / "out", images) == 1  # which level is the class, and what is Predict?
    words = "--layout={split}/{kind}/{category}", "--exclude=Predict"
    assert convert_to(tmp_path / "out", images, *words) == 0
    cells = {f"{kind}/{name}": 2 for kind, name in (("Animal", "cat"), ("Animal", "dog"), ("Plant", "oak"))}
    assert counts(tmp_path / "out") == {"Test": cells, "Train": cells}
    assert convert_to(tmp_path / "deep", images, "--layout={split}/**/{category}", "--exclude=Predict") == 0
    assert counts(tmp_path / "deep")["Train"] == {"cat": 2, "dog": 2, "oak": 2}


def test_a_csv_of_ids_without_ending_beside_a_directory_of_images(tmp_path):
    """Dog breeds: labels.csv with id and breed, train/ID.jpg, and a test/ without labels."""
    images = folders.make(tmp_path / "in", {"train": 4, "test": 2})
    (images / "labels.csv").write_text("id,breed\n0,pug\n1,beagle\n2,pug\n3,beagle\n")
    words = "--metadata=labels.csv", "--path_column=id", "--base_dir=train", "--path_suffix=.jpg"
    assert convert_to(tmp_path / "out", images, *words, "--label_columns=category=breed") == 0
    assert counts(tmp_path / "out") == {"test": {"?": 2}, "train": {"beagle": 2, "pug": 2}}
    assert stored(tmp_path / "out")["train/1.jpg"][1] == {"category": 0}
