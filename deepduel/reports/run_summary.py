"""A run as a few lines of HTML for a notebook: its classes, the curves of its training, and its mistakes."""

from collections.abc import Mapping, Sequence

import markupsafe

from deepduel.reports import charts
from deepduel.reports.tables import Table
from tfrecords_tools.progress import counted

_STYLE = markupsafe.Markup(
    "<style>.deepduel svg{max-width:420px}.deepduel text{font-size:11px;fill:gray}"
    ".deepduel .grid{stroke:#8884;fill:none}.deepduel .axis{stroke:gray;fill:none}"
    ".deepduel .line{fill:none;stroke-width:2}.deepduel .line.s0{stroke:#2563c9}"
    ".deepduel .line.s1{stroke:#d9660a}.deepduel .dot.s0{fill:#2563c9}.deepduel .dot.s1{fill:#d9660a}</style>"
)
_TICKS = 5


def html(
    name: str, classes: Mapping[str, Sequence[str]], history: Table, mistakes: Mapping[str, Table]
) -> str:
    """The summary.

    Args:
      name: the run's folder.
      classes: {axis: label names}.
      history: see `Run.history`.
      mistakes: {axis: see `Run.mistakes`}; of a run that was not evaluated none.
    """
    parts = [_STYLE, markupsafe.Markup("<h3>{}</h3>").format(name)]
    for axis, names in classes.items():
        parts.append(markupsafe.Markup("<p><b>{}</b>: {}</p>").format(axis, ", ".join(names)))
        parts.append(_accuracy(axis, history))
        if mistakes.get(axis):
            images = counted(len(mistakes[axis]), "validation image")
            title = f"{images} predicted wrongly, the most confident first:"
            parts.append(markupsafe.Markup("<p>{}</p>").format(title))
            parts.append(markupsafe.Markup(mistakes[axis]._repr_html_()))
    return f"<div class='deepduel'>{markupsafe.Markup('').join(parts)}</div>"


def _accuracy(axis: str, history: Table) -> markupsafe.Markup:
    """The accuracy in training and validation, by epoch; nothing before the first epoch has ended."""
    drawn = []
    for prefix, title in (("", "training"), ("val_", "validation")):
        rows = [row for row in history if row.get(f"{prefix}{axis}_accuracy") is not None]
        epochs, values = [row["epoch"] for row in rows], [row[f"{prefix}{axis}_accuracy"] for row in rows]
        if rows:
            drawn.append(charts.Series(title, epochs, values, dots=len(rows) < 20))
    if not drawn:
        return markupsafe.Markup("")
    last = history[-1]["epoch"]
    step = max(1, -(-(last - 1) // _TICKS))
    x = charts.Axis(
        "epoch", charts.ticks(*range(1, last + step, step)) if last > 1 else charts.ticks(0, 1, 2)
    )
    y = charts.span_axis("accuracy, %", [value for line in drawn for value in line.y])
    best = max(drawn[-1].y)
    caption = (
        f"accuracy in training (blue) and validation (orange); the best validation accuracy is {best:.2%}"
    )
    picture = charts.lines(drawn, x, y, label=f"{axis}: {caption}")
    return markupsafe.Markup("{}<p>{}</p>").format(picture, caption)
