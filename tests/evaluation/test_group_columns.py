"""Groups by columns of a CSV file: matched by path, whatever else the file holds."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepduel import evaluate
from deepduel.decoding.split import Split
from deepduel.evaluation import group_columns
from tests.conftest import run_command
from tests.helpers.fake_runs import write_run
from tfrecords_tools.errors import DataError, UsageError


def _keys(shards):
    split = Split(shards, "validation")
    return [split.key(number).decode() for number in range(len(split))]


def _write(path, rows, header=("image_path", "generator", "size")):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, toy_shards):
    return write_run(tmp_path_factory.mktemp("columns") / "run", toy_shards)


@pytest.mark.slow
def test_figures_by_a_column_are_those_of_its_images(run_folder, toy_shards, tmp_path, capsys):
    keys = _keys(toy_shards)
    rows = [
        (f"./{key}", ("sd, 1.4", "gan", "")[n % 3], "made" if "/fake/" in key and n % 2 else "")
        for n, key in enumerate(keys)
    ]
    path = _write(tmp_path / "about.csv", [("train/elsewhere.jpg", "gan", 1), *reversed(rows)])
    code = run_command(
        evaluate, f"--workdir={run_folder}", f"--data_dir={toy_shards}", "--bootstrap=0",
        f"--metadata={path}", "--group_by=generator,size",
    )  # fmt: skip
    assert code == 0
    assert "has no generator for 18 images: left out of its groups" in capsys.readouterr().out
    folder = run_folder / "evaluation" / "validation"
    document = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert document["ungrouped"]["generator"] == 18
    with (folder / "predictions.csv").open(newline="") as file:
        predicted = list(csv.DictReader(file))
    for axis, task in document["tasks"].items():
        groups = task["groups"]["generator"]
        assert list(groups) == ["gan", "sd, 1.4"]
        for number, name in enumerate(("sd, 1.4", "gan")):
            own = [row for n, row in enumerate(predicted) if n % 3 == number]
            assert groups[name]["images"] == len(own) == 18
            right = np.mean([row[axis] == row[f"{axis}_predicted"] for row in own])
            assert groups[name]["accuracy"] == pytest.approx(right)
    group = document["tasks"]["authenticity"]["groups"]["size"]["made"]
    own = [row for n, row in enumerate(predicted) if row["authenticity"] == "real" or n % 2]
    scores = [float(row["p_authenticity_fake"]) for row in own]
    expected = roc_auc_score([row["authenticity"] == "fake" for row in own], scores)
    assert group["auc"] is None and group["auc_against_others"] == pytest.approx(expected, abs=1e-4)
    assert "auc_against_others" not in document["tasks"]["category"]["groups"]["size"]["made"]
    page = (folder / "report.html").read_text("utf-8")
    assert "AUC*" in page
    assert "By generator" in page and "sd, 1.4" in page and "18 images of the split without generator" in page


def test_a_spreadsheet_of_windows_is_read_too(toy_shards, tmp_path):
    split, keys = Split(toy_shards, "validation"), _keys(toy_shards)
    rows = [f"{key.replace('/', chr(92))};sd, {number % 2}" for number, key in enumerate(keys)]
    (tmp_path / "about.csv").write_bytes("\r\n".join(["path;generator", *rows]).encode("utf-8-sig"))
    columns = group_columns.read(tmp_path / "about.csv", ["generator"], split)
    assert columns["generator"].tolist() == [f"sd, {number % 2}" for number in range(len(keys))]


def test_what_a_file_cannot_say_is_one_clear_line(toy_shards, tmp_path):
    split, key = Split(toy_shards, "validation"), _keys(toy_shards)[0]
    path = tmp_path / "about.csv"

    def fails(kind, says, rows, names=("generator",), header=("image_path", "generator", "size")):
        with pytest.raises(kind, match=says):
            group_columns.read(_write(path, rows, header), names, split)

    fails(UsageError, "'?camera.*it has generator, size", [(key, "gan", 1)], ["camera"])
    fails(UsageError, "label axis", [(key, "gan", 1)], ["category"])
    fails(DataError, "row 3 gives generator of .* as 'sd', an earlier row as 'gan'",
          [(key, "gan", 1), (key, "sd", 1)])  # fmt: skip
    fails(DataError, f"no row for any of the 54 .* such as {key}", [("photo.jpg", "gan", 1)])
    fails(DataError, "row 2 has 2 fields, but the header has 3", [(key, "gan")])
    fails(DataError, "no column image_path or .*generator", [("gan",)], header=("generator",))
    fails(DataError, "row . is not valid CSV .field larger", [(key, "x" * 200_000, 1)])
    many = [(key, f"camera {number}", 1) for number, key in enumerate(_keys(toy_shards))]
    monkey = pytest.MonkeyPatch()
    monkey.setattr(group_columns, "MOST_VALUES", 50)
    fails(UsageError, "54 different values", many)
    monkey.undo()
    with pytest.raises(DataError, match="nowhere.csv: cannot be read"):
        group_columns.read(tmp_path / "nowhere.csv", ["generator"], split)


@pytest.mark.parametrize("words", [["--group_by=generator"], ["--metadata=x.csv"],
                                   ["--metadata=x.csv", "--group_by=a,a"]], ids=str)  # fmt: skip
def test_the_two_flags_go_together(run_folder, toy_shards, words, capsys):
    assert run_command(evaluate, f"--workdir={run_folder}", f"--data_dir={toy_shards}", *words) == 2
    assert "--group_by=" in capsys.readouterr().err
