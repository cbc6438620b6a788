"""Counts of true and predicted classes -> confusion matrices as inline SVG, readable for any number of them.

A page has room for a few dozen names, a telephone for ten. Of more classes, the block of those that are
confused most often is drawn, with one column for all other predictions; `csv_of` has every count.
"""

import base64
import csv
import dataclasses
import io
import unicodedata
from collections.abc import Sequence

import markupsafe
import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from deepduel.reports import charts
from tfrecords_tools import terminal

NARROW_CLASSES = 10  # that fit on a telephone
WIDE_CLASSES = 40  # that fit on a page
BLOCK_CLASSES = 25  # that are drawn on a page when not all fit
_NARROW, _WIDE = 360, 1000  # widths of the drawings, in units that are about a pixel
_FONT = 11.5
_LETTER = 0.56  # mean width of a letter, as a share of the font size
_LINE = 13
OTHERS = "other classes"


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One drawing of a confusion matrix.

    Attributes:
      shown: where: "any", "narrow" (screens under 860 pixels) or "wide" (larger ones, and paper).
      svg: the drawing.
      caption: what it contains.
    """

    shown: str
    svg: markupsafe.Markup
    caption: str


@dataclasses.dataclass(frozen=True)
class ConfusedPair:
    """A class and another one that its images were predicted as.

    Attributes:
      truth, predicted: indices of the classes.
      images: how many.
      share: of the images of the true class, 0..1.
    """

    truth: int
    predicted: int
    images: int
    share: float


def drawings(counts: Sequence[Sequence[int]], names: Sequence[str]) -> list[Drawing]:
    """The drawings of int [true class, predicted class]: one, or one for each width of screens."""
    table = np.asarray(counts, np.int64)
    if len(names) <= NARROW_CLASSES:
        return [_drawing("any", table, names, range(len(names)))]
    wide = range(len(names)) if len(names) <= WIDE_CLASSES else most_confused(table, BLOCK_CLASSES)
    narrow = most_confused(table, NARROW_CLASSES)
    return [
        _drawing("wide", table, names, grouped(table, wide)),
        _drawing("narrow", table, names, grouped(table, narrow)),
    ]


def most_confused(counts: np.ndarray, limit: int) -> list[int]:
    """The classes of the pairs with the most mistakes in both directions, at most `limit`, in label order."""
    both = np.triu(counts + counts.T, 1)
    chosen: dict[int, None] = {}
    for flat in np.argsort(-both, axis=None, kind="stable").tolist():
        first, second = divmod(flat, len(counts))
        new = [name for name in (first, second) if name not in chosen]
        if len(chosen) == limit or (not both[first, second] and len(chosen) >= 2):
            break
        if len(chosen) + len(new) <= limit:
            chosen |= dict.fromkeys(new)
    return sorted(chosen)


def grouped(counts: np.ndarray, classes: Sequence[int]) -> list[int]:
    """The classes in an order in which those that are confused with one another are neighbours."""
    chosen = list(classes)
    part = counts[np.ix_(chosen, chosen)]
    shares = part / np.maximum(part.sum(1, keepdims=True), 1)
    apart = 1 - (shares + shares.T) / 2
    np.fill_diagonal(apart, 0)
    condensed = distance.squareform(apart, checks=False)
    tree = hierarchy.linkage(condensed, "average", optimal_ordering=True)
    return [chosen[leaf] for leaf in hierarchy.leaves_list(tree).tolist()]


def confused_pairs(counts: Sequence[Sequence[int]], limit: int) -> list[ConfusedPair]:
    """The pairs of true and predicted class with the most images, most first."""
    table = np.array(counts, np.int64)
    totals = table.sum(1)
    np.fill_diagonal(table, 0)
    pairs = []
    for flat in np.argsort(-table, axis=None, kind="stable")[:limit].tolist():
        truth, predicted = divmod(flat, len(table))
        images = int(table[truth, predicted])
        if images:
            pairs.append(ConfusedPair(truth, predicted, images, images / int(totals[truth])))
    return pairs


def csv_of(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """All counts above zero as a data: URL of a CSV file with the columns true, predicted and images."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("true", "predicted", "images"))
    cells = [terminal.word_cell(name) for name in names]
    for truth, row in enumerate(counts):
        writer.writerows((cells[truth], cells[column], value) for column, value in enumerate(row) if value)
    return "data:text/csv;base64," + base64.b64encode(text.getvalue().encode()).decode()


def _drawing(shown: str, counts: np.ndarray, names: Sequence[str], classes: Sequence[int]) -> Drawing:
    chosen = list(classes)
    part, titles = counts[np.ix_(chosen, chosen)], [names[index] for index in chosen]
    totals = counts[chosen].sum(1)
    columns = list(titles)
    if len(chosen) < len(names):
        part = np.hstack([part, (totals - part.sum(1))[:, None]])
        columns.append(OTHERS)
    grid = _Grid.of(_WIDE if shown == "wide" else _NARROW, titles, columns)
    parts = [*grid.names(titles, columns), *grid.cells(part, totals, titles, columns)]
    label = f"confusion matrix of {len(chosen)} of {len(names)} classes"
    if len(chosen) == len(names):
        label = f"confusion matrix of {len(names)} classes"
        caption = "Neighbouring classes are those confused most often." if shown != "any" else ""
    else:
        caption = f"The {len(chosen)} of {len(names):,} classes that are confused most often."
    return Drawing(shown, charts.svg(parts, label, grid.width, grid.height), caption)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Where the cells of a drawing lie.

    Attributes:
      width, height: of the drawing.
      left, top: of the first cell.
      across, down: width and height of a cell.
      upright: whether the names of the columns are written upwards.
    """

    width: int
    height: int
    left: float
    top: float
    across: float
    down: float
    upright: bool

    @classmethod
    def of(cls, width: int, rows: Sequence[str], columns: Sequence[str]) -> "_Grid":
        left = min(max(map(_length, rows)) + 26, width * 0.3)
        across = (width - left) / len(columns)
        down = min(max(across, 2 * _LINE), 52 if len(rows) > 4 else 92)
        upright = across < 64
        tallest = max(map(_length, columns)) + 8
        top = 20.0 + (min(tallest, 180 if width == _WIDE else 110) if upright else 2 * _LINE + 2)
        return cls(width, round(top + down * len(rows)) + 1, left, top, across, down, upright)

    def names(self, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
        """The names of rows and columns, and what each of them is."""
        middle = (self.top + self.height) / 2
        centre = f'x="{(self.left + self.width) / 2:.1f}" y="12"'
        beside = f'transform="translate(11 {middle:.1f}) rotate(-90)"'
        parts = [
            f'<text class="title" {centre} text-anchor="middle">predicted class</text>',
            f'<text class="title" {beside} text-anchor="middle">true class</text>',
        ]
        for number, name in enumerate(rows):
            right, y = self.left - 5, self.top + (number + 0.5) * self.down
            parts += _text(_wrapped(name, self.left - 24), right, y, "end", whole=name)
        for number, name in enumerate(columns):
            x, room = self.left + (number + 0.5) * self.across, self.top - 26
            if not self.upright:
                parts += _text(_wrapped(name, self.across - 6), x, self.top - 20, "middle", whole=name)
                continue
            lines = _wrapped(name, room) if self.across >= 2 * _LINE else [_cut(name, room)]
            turned = f'<g transform="translate({x:.1f} {self.top - 5:.1f}) rotate(-90)">'
            parts += [turned, *_text(lines, 0, 0, "start", whole=name), "</g>"]
        return parts

    def cells(
        self, counts: np.ndarray, totals: np.ndarray, rows: Sequence[str], columns: Sequence[str]
    ) -> list[str]:
        """The cells above zero, each with its count and, where there is room, its share of the row."""
        width, height = self.width - self.left, self.height - self.top
        parts = [_rectangle("empty", self.left, self.top, width, height)]
        for row, column in np.argwhere(counts).tolist():
            value, share = int(counts[row, column]), counts[row, column] / totals[row]
            x, y = self.left + column * self.across, self.top + row * self.down
            kind = "right" if row == column else "wrong"
            about = f"true {rows[row]}, predicted {columns[column]}: {value:,} ({share:.1%})"
            cell = _rectangle(kind, x + 0.5, y + 0.5, self.across - 1, self.down - 1, _shade(share))
            parts.append(f"<g><title>{charts.safe(about)}</title>{cell}")
            lines = [_count(value, self.across - 3)]
            if self.down >= 2.4 * _LINE and self.across >= 44:
                lines.append(f"{share:.1%}" if share >= 0.0005 else "< 0.1%")
            parts += [*_text(lines, x + self.across / 2, y + self.down / 2, "middle"), "</g>"]
        return parts


def _rectangle(kind: str, x: float, y: float, width: float, height: float, opacity: float = 1) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place} style="fill-opacity:{opacity:.2f}"/>'


def _shade(share: float) -> float:
    """The opacity of a cell: the square root, so that a share of 2 % can be seen."""
    return 0.08 + 0.57 * float(share) ** 0.5


def _text(lines: Sequence[str], x: float, y: float, anchor: str, *, whole: str = "") -> list[str]:
    """Lines of text around the height y; `whole` is what they are cut from, shown where the mouse rests."""
    cut = f"<title>{charts.safe(whole)}</title>" if whole and "".join(lines) != whole else ""
    first = y + 4 - (len(lines) - 1) * _LINE / 2
    parts = []
    for number, line in enumerate(lines):
        place = f'x="{x:.1f}" y="{first + number * _LINE:.1f}" text-anchor="{anchor}"'
        parts.append(f"<text {place}>{cut}{charts.safe(line)}</text>")
    return parts


def _count(value: int, room: float) -> str:
    """A count as text, in thousands or millions where the digits do not fit."""
    texts = [f"{value:,}"]
    if value >= 1000:
        texts += [str(value), f"{value / 1e3:.3g}k", f"{value / 1e3:.0f}k"]
    if value >= 1_000_000:
        texts += [f"{value / 1e6:.2g}M"]
    return next((text for text in texts if _length(text) <= room), texts[-1])


def _wrapped(name: str, room: float) -> list[str]:
    """A name on one line or, broken at a separator where possible, on two; what does not fit is left out."""
    if _length(name) <= room:
        return [name]
    fitting = next(end for end in range(len(name), -1, -1) if _length(name[:end]) <= room) or 1
    breaks = [place + 1 for place, letter in enumerate(name[:fitting]) if letter in " _-/."]
    end = breaks[-1] if breaks and breaks[-1] * 3 >= fitting else fitting
    first, second = name[:end], name[end:]
    return [first, _cut(second, room)]


def _cut(name: str, room: float) -> str:
    """As much of the beginning of a name as there is room for."""
    while _length(name) > room and len(name) > 2:
        name = name[:-2] + "…"
    return name


def _length(text: str) -> float:
    """About the width of a text; letters of Chinese and the like are twice as wide."""
    letters = sum(1.75 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
    return letters * _FONT * _LETTER
