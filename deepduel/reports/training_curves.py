"""RUN/history.csv -> plots of loss and accuracy by epoch, of training and of validation."""

import csv
import os
import pathlib
from collections.abc import Collection

from deepduel.reports import charts
from tfrecords_tools import regular_files

_MEASURES = {"loss": "Loss", "accuracy": "Accuracy"}
_SETS = {"training": "", "validation": "val_"}  # name: prefix of the columns


def read(workdir: str | os.PathLike, axes: Collection[str]) -> dict[str, dict]:
    """{axis: {"epochs": their number, "plots": see `report_page.plots`}} of a run.

    An axis is left out where fewer than two epochs have a value: there is no curve.
    """
    try:
        with regular_files.open_text(pathlib.Path(workdir, "history.csv")) as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return {}
    curves = {}
    for axis in axes:
        plots = [plot for measure in _MEASURES if (plot := _plot(rows, axis, measure))]
        if plots:
            curves[axis] = {"epochs": len(rows), "plots": plots}
    return curves


def _plot(rows: list[dict[str, str]], axis: str, measure: str) -> dict | None:
    series = []
    for name, prefix in _SETS.items():
        points = [
            (epoch, value)
            for epoch, row in enumerate(rows, 1)
            if (value := _value(row.get(f"{prefix}{axis}_{measure}"))) is not None
        ]
        if len(points) > 1:
            x, y = zip(*points, strict=True)
            series.append(charts.Series(name, x, y, dots=len(points) <= 30))
    if not series:
        return None
    values = [value for each in series for value in each.y]
    title = _MEASURES[measure]
    if measure == "accuracy":
        y_axis = charts.span_axis("%", values)
    else:
        y_axis = charts.value_axis(title.lower(), 0.0, max(values))
    return {
        "title": f"{title} by epoch",
        "svg": charts.lines(
            series, charts.value_axis("epoch", 0, len(rows), whole=True), y_axis,
            label=f"{title} by epoch of {' and '.join(each.name for each in series)}"),
        "legend": [each.name for each in series],
        "caption": "",
    }  # fmt: skip


def _value(text: str | None) -> float | None:
    """A finite value of a cell; None for an empty or damaged one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
