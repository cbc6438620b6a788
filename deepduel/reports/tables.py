"""Tables of results for Python: rows that pandas takes, and that a notebook shows with their pictures."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import markupsafe
import numpy as np

from deepduel.decoding.split import Split
from deepduel.evaluation.saved_evaluation import TaskPredictions
from deepduel.reports.thumbnail import data_url
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records

SHOWN_ROWS = 50  # of a table in a notebook
PICTURES = 24  # of the first rows
_CELL = markupsafe.Markup("<td style='text-align:left'>{}</td>")
_PICTURE = markupsafe.Markup("<img src='{}' style='max-height:96px'>")


class Table(list[dict[str, Any]]):
    """Rows as dicts {column: value}, in order; `pandas.DataFrame(table)` takes them.

    In a notebook it is shown as a table, with the pictures of the first rows where it has some.

    Attributes:
      pictures: uint8 [H, W, 3] of the first rows, at most 24; empty for a table without pictures.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = (), pictures: Sequence[np.ndarray] = ()):
        super().__init__(rows)
        self.pictures = list(pictures[:PICTURES])

    def _repr_html_(self) -> str:
        columns = list(dict.fromkeys(name for row in self[:SHOWN_ROWS] for name in row))
        heads = ["", *columns] if self.pictures else columns
        lines = [markupsafe.Markup("<tr>{}</tr>").format(_joined("<th>{}</th>", heads))]
        for number, row in enumerate(self[:SHOWN_ROWS]):
            cells = [_text(row.get(name)) for name in columns]
            if self.pictures:
                shown = number < len(self.pictures)
                cells.insert(0, _PICTURE.format(data_url(self.pictures[number])) if shown else "")
            lines.append(markupsafe.Markup("<tr>{}</tr>").format(_joined(_CELL, cells)))
        more = len(self) - SHOWN_ROWS
        rest = markupsafe.Markup("<p>{:,} more rows</p>").format(more) if more > 0 else ""
        return f"<table>{''.join(lines)}</table>{rest}"


def confusion(task: TaskPredictions, axis: str) -> Table:
    """A row per class: its name under `axis`, and how many of its images are predicted as each class."""
    counts = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(counts, (task.labels, task.predicted), 1)
    return Table(
        {axis: name, **dict(zip(task.classes, row, strict=True))}
        for name, row in zip(task.classes, counts.tolist(), strict=True)
    )


def mistakes(task: TaskPredictions, split: Split | None) -> Table:
    """A row per image that is predicted wrongly, the most confident one first.

    Args:
      split: the evaluated images; None for a table without pictures.
    """
    confidence = task.probabilities[np.arange(len(task.keys)), task.predicted]
    wrong = np.flatnonzero(task.predicted != task.labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")].tolist()
    rows = [
        {
            "image": task.keys[number],
            "label": task.classes[task.labels[number]],
            "predicted": task.classes[task.predicted[number]],
            "confidence": float(confidence[number]),
        }
        for number in wrong
    ]
    return Table(rows, [] if split is None else _pictures(split, task.keys, wrong[:PICTURES]))


def _pictures(split: Split, keys: Sequence[str], numbers: Sequence[int]) -> list[np.ndarray]:
    """The pixels of images by their numbers in `keys`, the keys of some of the records in their order.

    It ends at the first image that is not there: then the shards have been converted again since.
    """
    pixels: list[np.ndarray] = []
    with contextlib.suppress(DataError):
        for number in numbers:
            later = range(number, len(split))
            same = (record for record in later if records.key_text(split.key(record)) == keys[number])
            record = next(same, None)
            if record is None:
                break
            pixels.append(split.pixels(record))
    return pixels


def _joined(template: str, values: Iterable[str]) -> markupsafe.Markup:
    return markupsafe.Markup("").join(markupsafe.Markup(template).format(value) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
