"""Comparison of two runs: McNemar's test as published, and only over the same images."""

import csv
import json

import numpy as np
import pytest

from deepduel import compare, evaluate
from deepduel.decoding.split import Split
from deepduel.evaluation import bootstrap, comparison, saved_evaluation
from deepduel.reports import comparison_page
from tests.conftest import run_command
from tests.helpers.fake_runs import write_run
from tests.helpers.pages import BalancedPage

SURE = 0.9  # probability of the predicted label


def _run(folder, rows, axis="authenticity", classes=("real", "fake")):
    path = folder / "evaluation" / "validation"
    path.mkdir(parents=True)
    with (path / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", axis, f"{axis}_predicted", *(f"p_{axis}_{name}" for name in classes)])
        for key, label, predicted in rows:
            writer.writerow(
                [key, label, predicted, *(SURE if name == predicted else 1 - SURE for name in classes)]
            )
    (path / "metrics.json").write_text(json.dumps({"about": {"run": folder.name, "data_dir": "gone"}}))
    return folder


def _right(only_a, only_b, both, neither):
    first = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    second = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return np.array(first, bool), np.array(second, bool)


def test_p_values_are_those_of_the_exact_test():
    # Two-sided binomial tail: 2 * P(X <= 1), X ~ B(10, 1/2).
    result = comparison.mcnemar(*_right(9, 1, 80, 10))
    assert result["p_value"] == pytest.approx(2 * (1 + 10) / 2**10)
    assert result["accuracy"] == pytest.approx([0.89, 0.81])
    assert result["difference"] == pytest.approx(-0.08)
    assert comparison.mcnemar(*_right(0, 0, 5, 5))["p_value"] == 1.0
    assert comparison.mcnemar(*_right(5, 5, 0, 0))["p_value"] == 1.0


def test_the_interval_surrounds_the_difference_by_its_standard_error():
    result = comparison.mcnemar(*_right(60, 100, 700, 140))
    low, high = result["interval"]
    error = np.sqrt(160 / 1000 - 0.04**2) / np.sqrt(1000)
    assert (low, high) == pytest.approx((0.04 - 1.96 * error, 0.04 + 1.96 * error), abs=0.003)


def test_differences_of_figures_are_drawn_in_pairs():
    """The interval of a difference of accuracies is that of the paired outcomes, narrower than apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1000)
    first = np.where(rng.random(1000) < 0.8, labels, 1 - labels)
    second = np.where(rng.random(1000) < 0.05, labels, first)  # mostly the same answers
    one, other = (np.eye(2)[each] * 0.8 + 0.1 for each in (first, second))
    low, high = bootstrap.differences(labels, one, other)["accuracy"]
    expected = comparison.mcnemar(first == labels, second == labels)["interval"]
    assert (low, high) == pytest.approx(expected, abs=0.003)
    apart = [bootstrap.intervals(labels, each)["accuracy"] for each in (one, other)]
    assert high - low < 0.6 * min(top - bottom for bottom, top in apart)
    assert bootstrap.differences(labels, one, other, replicates=0) == {}


def test_two_runs_are_compared_image_by_image_whatever_the_order(tmp_path, capsys):
    rows = [[f"{n}.jpg", "real", "real" if n < 70 else "fake"] for n in range(100)]
    better = [[key, label, "real" if n < 90 else "fake"] for n, (key, label, _) in enumerate(rows)]
    a, b = _run(tmp_path / "a", rows), _run(tmp_path / "b", better[::-1], classes=("fake", "real"))
    assert run_command(compare, a, b, f"--output={tmp_path / 'c.json'}") == 0
    out = capsys.readouterr().out
    assert "A 70.00%, B 90.00%" in out and "B is better" in out
    task = json.loads((tmp_path / "c.json").read_text())["tasks"]["authenticity"]
    assert (task["only_first_right"], task["only_second_right"], task["both_right"]) == (0, 20, 70)
    accuracy = task["figures"]["accuracy"]
    assert accuracy["values"] == pytest.approx([0.7, 0.9])
    assert accuracy["interval"][0] < 0.2 < accuracy["interval"][1]
    assert task["figures"]["auc"] == {"values": [None, None], "difference": None, "interval": None}
    shown = task["disagreements"]
    assert shown["only_first_right"] == []
    assert {image["key"] for image in shown["only_second_right"]} <= {f"{n}.jpg" for n in range(70, 90)}
    assert shown["only_second_right"][0]["answers"] == ["fake", "real"]


def test_equal_runs_are_not_called_different(tmp_path, capsys):
    rows = [[f"{n}.jpg", "real", "real" if n % 3 else "fake"] for n in range(50)]
    a, b = _run(tmp_path / "a", rows), _run(tmp_path / "b", rows)
    assert run_command(compare, a, b) == 0
    assert "no significant difference" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_has_both_runs_their_figures_cells_and_the_pictures_they_disagree_on(
    toy_shards, tmp_path, capsys
):
    runs = [write_run(tmp_path / name / "run", toy_shards, seed=seed) for seed, name in enumerate("ab")]
    for run in runs:
        words = f"--workdir={run}", f"--data_dir={toy_shards}", "--bootstrap=0", "--duplicates=none"
        assert run_command(evaluate, *words) == 0
    page, numbers = tmp_path / "out" / "c.html", tmp_path / "out" / "c.json"
    assert run_command(compare, runs[0], runs[1], f"--output={page},{numbers}") == 0
    assert f"comparison: {page}" in capsys.readouterr().out
    document, text = json.loads(numbers.read_text()), page.read_text("utf-8")
    assert (document["format"], document["format_version"]) == ("deepduel-comparison", 1)
    assert "<title>a/run and b/run on validation</title>" in text
    disagreed = 0
    for axis, task in document["tasks"].items():
        cells = task["cells"]
        assert len(cells) == 6 and sum(cell["images"] for cell in cells.values()) == task["images"] == 54
        for outcome in ("both_right", "only_first_right", "only_second_right", "both_wrong"):
            assert sum(cell[outcome] for cell in cells.values()) == task[outcome]
        split = Split(toy_shards, "validation")
        for images in task["disagreements"].values():
            disagreed += len(images)
            for image in images:
                assert image["answers"][0] != image["answers"][1]
                assert image["truth"] == image["key"].split("/")[1 if axis == "authenticity" else 2]
        assert len(split) == 54
    assert text.count("<img") == disagreed > 0
    parser = BalancedPage(text)
    assert parser.open == []
    assert all(link.startswith(("#", "data:")) for link in parser.links)


def test_a_page_without_the_shards_says_where_the_pictures_are(tmp_path):
    rows = [[f"<{n}>.jpg", "real", "real" if n < 70 else "fake"] for n in range(100)]
    other = [[key, label, "real"] for key, label, _ in rows]
    a, b = (_run(tmp_path / name, part) for name, part in (("a", rows), ("b", other)))
    page = tmp_path / "c.html"
    assert run_command(compare, a, b, f"--output={page}") == 0
    text = page.read_text("utf-8")
    assert "Shown without images" in text and "Set --data_dir to their folder" in text
    assert "<img" not in text and "&lt;70&gt;.jpg" in text


def test_runs_are_told_apart_by_as_much_of_their_paths_as_it_takes():
    def names(*runs):
        return comparison_page.run_names({"runs": runs})

    assert names("/x/a", "/x/b") == ["a", "b"]
    assert names("/x/a/run", "/y/a/run") == ["x/a/run", "y/a/run"]
    assert names("/x/a", "/x/a") == ["a", "a"]


def test_axes_whose_names_begin_alike_are_kept_apart(tmp_path):
    path = tmp_path / "evaluation" / "validation"
    path.mkdir(parents=True)
    header = "key,a,a_predicted,p_a_b_x,p_a_y,a_b,a_b_predicted,p_a_b_x,p_a_b_z"
    (path / "predictions.csv").write_text(
        f"{header}\n1.jpg,b_x,y,0.2,0.8,x,z,0.4,0.6\n2.jpg,,y,0.2,0.8,z,z,0.1,0.9\n"
    )
    (path / "metrics.json").write_text('{"about": {}}')
    tasks = saved_evaluation.read(tmp_path, "validation").tasks
    assert (tasks["a"].classes, tasks["a_b"].classes) == (("b_x", "y"), ("x", "z"))
    assert tasks["a"].keys == ["1.jpg"] and tasks["a_b"].keys == ["1.jpg", "2.jpg"]
    assert tasks["a_b"].probabilities.tolist() == [[0.4, 0.6], [0.1, 0.9]]


def test_classes_called_like_columns_are_read_back(tmp_path):
    path = tmp_path / "evaluation" / "validation"
    path.mkdir(parents=True)
    header = "key,a,a_predicted,p_a_x,p_a_x_predicted,b,b_predicted,p_b_y"
    (path / "predictions.csv").write_text(f"{header}\n1.jpg,x,x_predicted,0.2,0.8,y,y,1\n")
    (path / "metrics.json").write_text('{"about": {}}')
    tasks = saved_evaluation.read(tmp_path, "validation").tasks
    assert {axis: task.classes for axis, task in tasks.items()} == {"a": ("x", "x_predicted"), "b": ("y",)}
    assert tasks["a"].probabilities.tolist() == [[0.2, 0.8]]


def test_mistakes_get_one_clear_line(tmp_path, capsys):
    a = _run(tmp_path / "a", [["1.jpg", "real", "real"], ["2.jpg", "fake", "real"]])
    fewer = _run(tmp_path / "b", [["1.jpg", "real", "real"]])
    others = _run(tmp_path / "c", [["1.jpg", "fake", "real"], ["2.jpg", "fake", "real"]])
    another = _run(tmp_path / "d", [["1.jpg", "cats", "cats"]], axis="category", classes=("cats", "dogs"))
    labels = _run(
        tmp_path / "f", [["1.jpg", "real", "real"], ["2.jpg", "gan", "real"]], classes=("real", "gan")
    )
    broken = _run(tmp_path / "g", [["1.jpg", "real", "real"], ["2.jpg", "fake", "unheard of"]])
    (tmp_path / "e").mkdir()

    def fails(words, code, *says):
        assert run_command(compare, *words) == code
        error = capsys.readouterr().err
        assert "Traceback" not in error and all(part in error for part in says), error

    fails([a, fewer], 1, "different images", "1 not in both")
    fails([a, others], 1, "1.jpg", "real, fake")
    fails([a, labels], 1, "different labels", "real, gan")
    fails([a, broken], 1, "predictions.csv", "evaluate the run again")
    fails([a, another], 2, "share no task")
    fails([a, tmp_path / "e"], 1, "predictions.csv", "deepduel.evaluate")
    fails([a], 2, "two run folders")
    fails([a, fewer, a], 2, "two run folders")
    fails([a, a, f"--output={tmp_path / 'x.pdf'}"], 2, "x.pdf", ".html", ".json")
