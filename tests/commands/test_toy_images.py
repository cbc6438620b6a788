import csv

import numpy as np
from PIL import Image

from deepduel import toy_images
from tests.conftest import run_command


def test_the_layout_is_artifacts(toy_folder):
    with (toy_folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 168 + 54
    for row in rows:
        split, label, category, _ = row["image_path"].split("/")
        assert split in ("train", "validation")
        assert (label, category) == (toy_images.LABELS[int(row["label"])], row["class"])
        assert (toy_folder / row["image_path"]).is_file()
    assert len(list((toy_folder / "test").glob("*.jpg"))) == 18


def test_every_cell_is_filled_alike(toy_folder):
    for split, count in (("train", 28), ("validation", 9)):
        cells = [len(list(folder.iterdir())) for folder in (toy_folder / split).glob("*/*")]
        assert cells == [count] * 6


def test_the_same_seed_draws_the_same_bytes(toy_folder, tmp_path):
    toy_images.write_folder(tmp_path / "again", count=240, size=32, seed=0)
    toy_images.write_folder(tmp_path / "other", count=240, size=32, seed=1)
    name = "train/fake/vehicles"
    for path in (toy_folder / name).iterdir():
        assert (tmp_path / "again" / name / path.name).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / name / path.name).read_bytes() != path.read_bytes()


def test_only_fakes_carry_the_checkerboard():
    """The trace is at the highest frequency in both directions: correlate with it."""
    pattern = np.tile([[1, -1], [-1, 1]], (16, 16))[:, :, None]

    def trace(fake):
        rng = np.random.default_rng(0)
        images = [toy_images.draw(category, fake, 32, rng) for category in toy_images.CATEGORIES * 10]
        return np.mean([abs((image * pattern).mean()) for image in images])

    assert trace(True) > 8 * trace(False)


def test_a_folder_of_other_things_is_not_overwritten(tmp_path, capsys):
    """Also where it has a metadata.csv, as folders of labelled images have."""
    own = tmp_path / "train" / "real" / "animals" / "holiday.jpg"
    words = f"--output_dir={tmp_path}", "--count=6", "--size=16"
    assert run_command(toy_images, *words) == 0
    assert run_command(toy_images, *words) == 0  # its own images are replaced
    Image.new("RGB", (4, 4)).save(own)
    assert run_command(toy_images, *words) == 1
    error = capsys.readouterr().err
    assert "holds more than toy images, train/real/animals/holiday.jpg; set another --output_dir" in error
    assert own.is_file()
