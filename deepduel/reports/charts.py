"""Plots as inline SVG: numbers -> markup for report.html, coloured by its style sheet.

Colours are CSS classes (`s0` … `s4` for series, `axis`, `grid`), so that a plot follows the page
into dark mode; text is text, so that it can be read out and searched.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import markupsafe

WIDTH, HEIGHT = 340, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 42
UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
      name: for the legend; "" for none.
      x, y: its points.
      dots: draw the points too.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
      title: what it measures.
      ticks: (value, label); their ends are the axis' ends.
      reverse: the largest value comes first (left).
    """

    title: str
    ticks: tuple[tuple[float, str], ...]
    reverse: bool = False

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two coordinates; outside the ticks it is cut off."""
        low, high = self.ticks[0][0], self.ticks[-1][0]
        share = (min(max(value, low), high) - low) / (high - low)
        return start + (1 - share if self.reverse else share) * (end - start)


def percent_axis(title: str, values: Sequence[float] = UNIT, *, reverse: bool = False) -> Axis:
    """An axis of shares, labelled in percent."""
    return Axis(title, tuple((value, f"{value * 100:.3g}") for value in values), reverse)


def span_axis(title: str, values: Sequence[float]) -> Axis:
    """An axis of shares around the values: as much of 0..1 as they need, in even steps."""
    lowest = min([value for value in values if value is not None], default=0.0)
    start = next(start for start in (0.9, 0.8, 0.5, 0.0) if lowest >= start or start == 0.0)
    step = (1 - start) / 5 if start in (0.0, 0.5) else (1 - start) / 4
    count = round((1 - start) / step)
    return percent_axis(title, [round(start + number * step, 6) for number in range(count + 1)])


def ticks(*values: float) -> tuple[tuple[float, str], ...]:
    """Ticks labelled with their values."""
    return tuple((value, f"{value:.3g}") for value in values)


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
      label: what it shows, for screen readers.
      diagonal: draw the line y = x (chance, perfect calibration).
      level: draw a horizontal line there (chance).
    """
    parts = [_frame(x, y)]
    if diagonal:
        parts.append(f'<path class="reference" d="M{_x(x, 0)} {_y(y, 0)}L{_x(x, 1)} {_y(y, 1)}"/>')
    if level is not None:
        parts.append(f'<path class="reference" d="M{LEFT} {_y(y, level)}H{WIDTH - RIGHT}"/>')
    for number, one in enumerate(series):
        parts.append(f'<path class="line s{number}" d="{_path(zip(one.x, one.y, strict=True), x, y)}"/>')
        if one.dots:
            parts += [
                f'<circle class="dot s{number}" cx="{_x(x, a)}" cy="{_y(y, b)}" r="3"/>'
                for a, b in zip(one.x, one.y, strict=True)
            ]
    return _svg(parts, label)


def histogram(counts: Sequence[Sequence[int]], x: Axis, *, label: str) -> markupsafe.Markup:
    """Overlaid bars over x's whole length, one set per series; each set in shares of its own sum."""
    shares = [[value / max(1, sum(one)) for value in one] for one in counts]
    top = max(max(one, default=0) for one in shares) or 1
    y = _top_axis(top)
    parts = [_frame(x, y)]
    for number, one in enumerate(shares):
        width = (WIDTH - LEFT - RIGHT) / len(one)
        for place, share in enumerate(one):
            if share:
                parts.append(
                    f'<rect class="bar s{number}" x="{LEFT + place * width:.1f}" y="{_y(y, share)}" '
                    f'width="{width - 0.6:.1f}" height="{HEIGHT - BOTTOM - float(_y(y, share)):.1f}"/>'
                )
    return _svg(parts, label)


def _top_axis(top: float) -> Axis:
    """From 0 to a round share just above `top`."""
    step = next(step for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if step * 4 >= top or step == 0.25)
    return percent_axis("% of the images", [step * number for number in range(5)])


def _frame(x: Axis, y: Axis) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(at) + 4:.1f}" text-anchor="end">{_safe(text)}</text>')
    for value, text in x.ticks:
        at = _x(x, value)
        parts.append(f'<path class="grid" d="M{at} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{_safe(text)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (TOP + bottom) / 2
    below, beside = (
        f'x="{(LEFT + right) / 2}" y="{HEIGHT - 6}"',
        f'transform="translate(11 {middle}) rotate(-90)"',
    )
    for place, axis in ((below, x), (beside, y)):
        parts.append(f'<text class="title" {place} text-anchor="middle">{_safe(axis.title)}</text>')
    return "".join(parts)


def _path(points: Iterable[tuple[float, float]], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{_x(x, a)} {_y(y, b)}" for a, b in points)


def _x(axis: Axis, value: float) -> str:
    return f"{axis.place(value, LEFT, WIDTH - RIGHT):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{axis.place(value, HEIGHT - BOTTOM, TOP):.1f}"


def _svg(parts: Sequence[str], label: str) -> markupsafe.Markup:
    inside = "".join(parts)
    text = _safe(label)
    head = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text}"'
    return markupsafe.Markup(f"<svg {head}><title>{text}</title>{inside}</svg>")


def _safe(text: str) -> str:
    return str(markupsafe.escape(text))
