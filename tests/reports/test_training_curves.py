"""Training curves: the values of history.csv, for the axes that have any."""

import re

from deepduel.reports import charts, training_curves


def test_training_and_validation_are_drawn_by_epoch(tmp_path):
    (tmp_path / "history.csv").write_text(
        "epoch,a_loss,a_accuracy,val_a_loss,val_a_accuracy,b_loss\n1,2,.5,2.5,.4,1\n2,1,.7,nan,.6,\n3,.5,.8,1.5,.7,\n"
    )
    curves = training_curves.read(tmp_path, ["a", "b", "c"])
    assert list(curves) == ["a"]  # b has one epoch, c none
    loss, accuracy = curves["a"]["plots"]
    assert curves["a"]["epochs"] == 3 and loss["legend"] == ["training", "validation"]
    assert [len(re.findall(rf'<circle class="dot s{line}"', loss["svg"])) for line in (0, 1)] == [3, 2]
    assert accuracy["title"] == "Accuracy by epoch" and "<circle" in accuracy["svg"]


def test_a_run_without_a_history_has_no_curves(tmp_path):
    assert training_curves.read(tmp_path, ["a"]) == {}
    (tmp_path / "history.csv").write_bytes(b"\xff\x00")
    assert training_curves.read(tmp_path, ["a"]) == {}


def test_axes_of_values_have_round_ticks_that_hold_them():
    for low, high in ((0, 2.3), (0, 0.0007), (0, 12_345), (0, 1e-12)):
        ticks = [value for value, _ in charts.value_axis("", low, high).ticks]
        assert ticks[0] == low and ticks[-1] >= high and 2 <= len(ticks) <= 8
    assert [text for _, text in charts.value_axis("", 0, 20, whole=True).ticks] == [
        "0",
        "5",
        "10",
        "15",
        "20",
    ]
    assert [value for value, _ in charts.value_axis("", 0, 2, whole=True).ticks] == [0, 1, 2]
