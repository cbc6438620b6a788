"""Numbers -> plots as inline SVG, coloured by the page's style sheet.

Colours are CSS classes (`s0` … `s4` for series, `axis`, `grid`), so that plots follow
the page into dark mode. Text stays text, so that screen readers and searches find it.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import markupsafe

WIDTH, HEIGHT = 340, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 42
UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Series:
    """A line of a plot.

    Attributes:
      name: its name in the legend; "" for none.
      x, y: coordinates of its points.
      dots: whether to draw the points too.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Attributes:
      title: what the axis measures.
      ticks: (value, label) in increasing order; the axis ends at the first and the last.
      reverse: whether the largest value is on the left.
    """

    title: str
    ticks: tuple[tuple[float, str], ...]
    reverse: bool = False

    def coordinate(self, value: float, start: float, end: float) -> float:
        """The coordinate of a value on an axis from `start` to `end`; values beyond the ticks are clipped."""
        low, high = self.ticks[0][0], self.ticks[-1][0]
        share = (min(max(value, low), high) - low) / (high - low)
        return start + (1 - share if self.reverse else share) * (end - start)


def percent_axis(title: str, values: Sequence[float] = UNIT, *, reverse: bool = False) -> Axis:
    """An axis of shares, labelled in percent."""
    return Axis(title, tuple((value, f"{value * 100:.3g}") for value in values), reverse)


def span_axis(title: str, values: Sequence[float]) -> Axis:
    """An axis of shares from a round value below the smallest of `values` up to 1."""
    lowest = min([value for value in values if value is not None], default=0.0)
    start = next(start for start in (0.9, 0.8, 0.5, 0.0) if lowest >= start or start == 0.0)
    step = (1 - start) / 5 if start in (0.0, 0.5) else (1 - start) / 4
    count = round((1 - start) / step)
    return percent_axis(title, [round(start + number * step, 6) for number in range(count + 1)])


def value_axis(title: str, low: float, high: float, *, whole: bool = False) -> Axis:
    """An axis from `low` to at least `high`, with about five round ticks; all whole with `whole`."""
    span = max(high - low, 1.0 if whole else 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= span / 5)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    return Axis(title, ticks(*(low + number * step for number in range(math.ceil(span / step - 1e-9) + 1))))


def ticks(*values: float) -> tuple[tuple[float, str], ...]:
    """Ticks labelled with their values."""
    return tuple((value, f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}") for value in values)


def lines(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    label: str,
    diagonal: bool = False,
    level: float | None = None,
) -> markupsafe.Markup:
    """A line plot.

    Args:
      label: description of the plot for screen readers.
      diagonal: whether to draw the line y = x (chance, or perfect calibration).
      level: y of a horizontal reference line (chance); None draws none.
    """
    parts = [_frame(x, y)]
    if diagonal:
        parts.append(f'<path class="reference" d="M{_x(x, 0)} {_y(y, 0)}L{_x(x, 1)} {_y(y, 1)}"/>')
    if level is not None:
        parts.append(f'<path class="reference" d="M{LEFT} {_y(y, level)}H{WIDTH - RIGHT}"/>')
    for number, line in enumerate(series):
        parts.append(f'<path class="line s{number}" d="{_path(zip(line.x, line.y, strict=True), x, y)}"/>')
        if line.dots:
            parts += [
                f'<circle class="dot s{number}" cx="{_x(x, a)}" cy="{_y(y, b)}" r="3"/>'
                for a, b in zip(line.x, line.y, strict=True)
            ]
    return svg(parts, label)


def histogram(counts: Sequence[Sequence[int]], x: Axis, *, label: str) -> markupsafe.Markup:
    """Overlaid histograms with bins of equal width along x; each is normalised to a sum of 1."""
    shares = [[value / max(1, sum(bins)) for value in bins] for bins in counts]
    top = max(max(bins, default=0) for bins in shares) or 1
    y = _top_axis(top)
    parts = [_frame(x, y)]
    for number, bins in enumerate(shares):
        width = (WIDTH - LEFT - RIGHT) / len(bins)
        for index, share in enumerate(bins):
            if share:
                parts.append(
                    f'<rect class="bar s{number}" x="{LEFT + index * width:.1f}" y="{_y(y, share)}" '
                    f'width="{width - 0.6:.1f}" height="{HEIGHT - BOTTOM - float(_y(y, share)):.1f}"/>'
                )
    return svg(parts, label)


def _top_axis(top: float) -> Axis:
    """An axis from 0 to a round share just above `top`."""
    step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if step * 4 >= top or step == 0.25)
    return percent_axis("% of the images", [step * number for number in range(5)])


def _frame(x: Axis, y: Axis) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(at) + 4:.1f}" text-anchor="end">{safe(text)}</text>')
    for value, text in x.ticks:
        at = _x(x, value)
        parts.append(f'<path class="grid" d="M{at} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{safe(text)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (TOP + bottom) / 2
    below, beside = (
        f'x="{(LEFT + right) / 2}" y="{HEIGHT - 6}"',
        f'transform="translate(11 {middle}) rotate(-90)"',
    )
    for position, axis in ((below, x), (beside, y)):
        parts.append(f'<text class="title" {position} text-anchor="middle">{safe(axis.title)}</text>')
    return "".join(parts)


def _path(points: Iterable[tuple[float, float]], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{_x(x, a)} {_y(y, b)}" for a, b in points)


def _x(axis: Axis, value: float) -> str:
    return f"{axis.coordinate(value, LEFT, WIDTH - RIGHT):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{axis.coordinate(value, HEIGHT - BOTTOM, TOP):.1f}"


def svg(parts: Sequence[str], label: str, width: int = WIDTH, height: int = HEIGHT) -> markupsafe.Markup:
    """Elements -> a drawing that takes the width of its place, with a description for screen readers."""
    inside = "".join(parts)
    text = safe(label)
    head = f'viewBox="0 0 {width} {height}" role="img" aria-label="{text}"'
    return markupsafe.Markup(f"<svg {head}><title>{text}</title>{inside}</svg>")


def safe(text: str) -> str:
    """A text escaped for HTML."""
    return str(markupsafe.escape(text))
