"""Comparison of two runs: McNemar's test as published, and only over the same images."""

import csv
import json

import numpy as np
import pytest

from deepduel import compare, evaluate
from tests.conftest import run_command


def _run(folder, rows, axis="authenticity"):
    path = folder / "evaluation" / "validation"
    path.mkdir(parents=True)
    with (path / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["key", axis, f"{axis}_predicted"], *rows])
    return folder


def _right(only_a, only_b, both, neither):
    first = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    second = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return np.array(first, bool), np.array(second, bool)


def test_p_values_are_those_of_the_exact_test():
    # Two-sided binomial tail: 2 * P(X <= 1), X ~ B(10, 1/2).
    found = compare.mcnemar(*_right(9, 1, 80, 10))
    assert found["p_value"] == pytest.approx(2 * (1 + 10) / 2**10)
    assert found["accuracy"] == pytest.approx([0.89, 0.81])
    assert found["difference"] == pytest.approx(-0.08)
    assert compare.mcnemar(*_right(0, 0, 5, 5))["p_value"] == 1.0
    assert compare.mcnemar(*_right(5, 5, 0, 0))["p_value"] == 1.0


def test_the_interval_surrounds_the_difference_by_its_standard_error():
    found = compare.mcnemar(*_right(60, 100, 700, 140))
    low, high = found["interval"]
    error = np.sqrt(160 / 1000 - 0.04**2) / np.sqrt(1000)
    assert (low, high) == pytest.approx((0.04 - 1.96 * error, 0.04 + 1.96 * error), abs=0.003)


def test_two_runs_are_compared_image_by_image_whatever_the_order(tmp_path, capsys):
    rows = [[f"{n}.jpg", "real", "real" if n < 70 else "fake"] for n in range(100)]
    better = [[key, label, "real" if n < 90 else "fake"] for n, (key, label, _) in enumerate(rows)]
    a, b = _run(tmp_path / "a", rows), _run(tmp_path / "b", better[::-1])
    assert run_command(evaluate, f"--compare={a},{b}", f"--output={tmp_path / 'c.json'}") == 0
    out = capsys.readouterr().out
    assert "A 70.00%, B 90.00%" in out and "B is better" in out
    task = json.loads((tmp_path / "c.json").read_text())["tasks"]["authenticity"]
    assert (task["only_first_right"], task["only_second_right"], task["both_right"]) == (0, 20, 70)


def test_equal_runs_are_not_called_different(tmp_path, capsys):
    rows = [[f"{n}.jpg", "real", "real" if n % 3 else "fake"] for n in range(50)]
    a, b = _run(tmp_path / "a", rows), _run(tmp_path / "b", rows)
    assert run_command(evaluate, f"--compare={a},{b}") == 0
    assert "no difference" in capsys.readouterr().out


def test_mistakes_get_one_clear_line(tmp_path, capsys):
    a = _run(tmp_path / "a", [["1.jpg", "real", "real"], ["2.jpg", "fake", "real"]])
    fewer = _run(tmp_path / "b", [["1.jpg", "real", "real"]])
    others = _run(tmp_path / "c", [["1.jpg", "fake", "real"], ["2.jpg", "fake", "real"]])
    another = _run(tmp_path / "d", [["1.jpg", "cats", "cats"]], axis="category")
    (tmp_path / "e").mkdir()

    def fails(words, code, *says):
        assert run_command(evaluate, *words) == code
        error = capsys.readouterr().err
        assert "Traceback" not in error and all(part in error for part in says), error

    fails([f"--compare={a},{fewer}"], 1, "different images", "1 not in both")
    fails([f"--compare={a},{others}"], 1, "1.jpg", "real, fake")
    fails([f"--compare={a},{another}"], 2, "share no task")
    fails([f"--compare={a},{tmp_path / 'e'}"], 1, "predictions.csv", "deepduel.evaluate")
    fails([f"--compare={a}"], 2, "two run folders")
    fails([f"--compare={a},{fewer}", f"--workdir={a}"], 2, "no --workdir")
    fails([f"--workdir={a}"], 2, "--data_dir is missing")
    fails([f"--workdir={a}", f"--data_dir={a}", "--output=x.json"], 2, "--output goes with --compare")
