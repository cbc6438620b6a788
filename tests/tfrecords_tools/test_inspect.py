import types

import numpy as np
import pytest
from PIL import Image

from tests.conftest import run_command
from tests.helpers import folders
from tfrecords_tools import convert, inspect
from tfrecords_tools.checking import contact_sheets, hashing
from tfrecords_tools.format import manifest


@pytest.fixture(scope="module", params=["keep", "raw"])
def shards(request, tmp_path_factory):
    root = folders.duel(tmp_path_factory.mktemp("inspect") / "images")
    words = ["--encoding=raw", "--image_size=24"] if request.param == "raw" else []
    output = root.parent / "shards"
    assert run_command(convert, f"--input_dir={root}", f"--output_dir={output}", "--workers=1", *words) == 0
    return output


def test_inspect_tells_counts_and_draws_a_sheet_per_cell(shards, tmp_path, capsys):
    words = f"--data_dir={shards}", f"--sheet_dir={tmp_path}/sheets", "--per_sheet=3"
    assert run_command(inspect, *words) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "train" in line and "fake/dogs" in line)
    assert line.split()[:3] == ["train", "fake/dogs", "4"]
    assert "without labels" in out and "24x24 100.0%" in out and "9 contact sheets" in out
    sheets = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert len(sheets) == 9 and sheets[0] == "test-unlabelled.png" and "train-fake-dogs.png" in sheets
    with Image.open(tmp_path / "sheets" / "train-fake-dogs.png") as opened:
        pixels = np.asarray(opened)
    assert pixels.shape == (240, 240, 3)
    assert pixels[48:72, 48:72].std() > 5  # an image in the first place
    assert (pixels[120:, 120:] == 255).all()  # three of four places are taken


def test_cells_have_counts_and_mean_sizes(shards):
    whole = manifest.load(shards)
    counted_cells = contact_sheets.cells(whole, str(shards), "train")
    assert {cell: count for cell, (count, _) in counted_cells.items()} == whole.splits["train"].cells
    if "raw" in whole.encodings:
        assert all(mean == 24 * 24 * 3 for _, mean in counted_cells.values())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--data_dir is missing; set it to a folder of shards"),
        (["--data_dir=x", "--per_sheet=-1"], 2, "--per_sheet must be 0 to 10,000"),
        (["--data_dir=x", "--duplicates_csv=y"], 2, "--duplicates_csv needs --duplicates"),
        (["--data_dir=x", "--workers=2"], 2, "--workers needs --duplicates"),
        (["--data_dir=x", "--duplicates", "--workers=-1"], 2, "--workers must be 1 to 1024"),
        (["--data_dir=x", "--duplicates", "--duplicates_csv=none/y"], 2, "there is no folder none; make it"),
        (["--data_dir=nowhere"], 1, "no such folder of shards"),
    ],
)
def test_wrong_usage(capsys, words, code, message):
    assert run_command(inspect, *words) == code
    assert message in capsys.readouterr().err


def test_each_class_has_a_sheet_of_its_own_whatever_its_name(tmp_path, capsys):
    images = folders.make(tmp_path / "in", {"a b": 1, "a_b": 1, "ü" * 120: 1})
    assert run_command(convert, f"--input_dir={images}", f"--output_dir={tmp_path}/out", "--workers=1") == 0
    assert run_command(inspect, f"--data_dir={tmp_path}/out") == 0
    sheets = sorted(path.name for path in (tmp_path / "out-sheets").iterdir())
    assert sheets == ["train-a_b-2.png", "train-a_b.png", f"train-{'ü' * 60}.png"]
    (table,) = (tmp_path / "out").glob("*.tfrecord-*.npy")
    table.write_bytes(table.read_bytes()[:-9])
    capsys.readouterr()
    assert run_command(inspect, f"--data_dir={tmp_path}/out") == 1
    assert f"{table}: " in (error := capsys.readouterr().err) and "tfrecords_tools.verify" in error


def test_an_image_that_does_not_decode_is_compared_by_its_bytes_alone(shards, monkeypatch):
    def fail(data, row):
        raise ValueError("no image")

    monkeypatch.setattr(contact_sheets, "pixels", fail)
    job = 0, "train", manifest.load(shards).splits["train"].shards[0].file
    counts = types.SimpleNamespace(add=lambda images, size: None)
    rows, keys = hashing._hash_shard((str(shards), 2, True), job, counts)
    assert len({content for content, _ in rows}) == len(keys) > 10
    assert {phash for _, phash in rows} == {None}


def test_sheets_do_not_go_among_the_shards(shards, capsys):
    assert run_command(inspect, f"--data_dir={shards}", f"--sheet_dir={shards}/") == 2
    assert "--sheet_dir must not be --data_dir" in capsys.readouterr().err


def test_the_list_of_duplicates_replaces_neither_shard_nor_image(shards, tmp_path, capsys):
    shard = next(shards.glob("*.tfrecord-*-of-*"))
    image = next((shards.parent / "images").rglob("*.jpg"))
    before = shard.read_bytes(), image.read_bytes()
    for path, says in ((shard, "must not be in --data_dir"), (image, "is an image, which would be lost")):
        assert run_command(inspect, f"--data_dir={shards}", "--duplicates", f"--duplicates_csv={path}") == 2
        assert says in capsys.readouterr().err
    assert (shard.read_bytes(), image.read_bytes()) == before


def test_duplicates_under_two_labels_are_reported_with_both(tmp_path, capsys):
    images = folders.make(tmp_path / "in", {"cats": 3, "dogs": 3})
    (images / "dogs" / "copy.jpg").write_bytes((images / "cats" / "0.jpg").read_bytes())
    assert run_command(convert, f"--input_dir={images}", f"--output_dir={tmp_path}/out", "--workers=1") == 0
    words = "--duplicates", "--per_sheet=0", "--duplicate_distance=-1", "--workers=1"
    listed = tmp_path / "list.csv"
    assert run_command(inspect, f"--data_dir={tmp_path}/out", f"--duplicates_csv={listed}", *words) == 0
    out = capsys.readouterr().out
    assert "duplicates with different labels: 1 group (2 images)" in out
    line = next(line for line in out.splitlines() if " = " in line)
    assert sorted(line.strip().split(" = ")) == ["train: cats/0.jpg (cats)", "train: dogs/copy.jpg (dogs)"]
    assert listed.read_text().startswith("group,split,key,labels\n")
