"""The content of metrics.json -> report.html: one file that needs no other file and no network."""

import base64
import hashlib
import importlib.resources
from typing import Any

import jinja2
import markupsafe

from deepduel.evaluation import metrics
from deepduel.reports import charts, confusion_matrix
from tfrecords_tools.format import split_names
from tfrecords_tools.progress import counted

SHORT = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "auc": "AUC",
    "log_loss": "log loss",
    "ece": "ECE",
    "tpr_at_fpr_5": "TPR at 5 % FPR",
}
SHARES = ("accuracy", "balanced_accuracy", "ece", *metrics.FALSE_POSITIVE_RATES)  # shown in percent
DAMAGES = {  # kind: (title, axis that begins with the undamaged image)
    "jpeg": (
        "Recompressed as JPEG",
        charts.Axis("JPEG quality (100: unchanged)", charts.ticks(30, 50, 70, 85, 100), reverse=True),
    ),
    "blur": ("Blurred", charts.Axis("standard deviation, pixels", charts.ticks(0, 1, 2, 3))),
    "resize": (
        "Downscaled and upscaled",
        charts.percent_axis("% of the side length", (0.25, 0.5, 0.75, 1), reverse=True),
    ),
    "crop": (
        "Cropped and upscaled",
        charts.percent_axis("% of the side length", (0.5, 0.6, 0.7, 0.8, 0.9, 1), reverse=True),
    ),
}


PAGE_SIZE = 24  # images of a gallery that are shown at once, and printed
PRINTED_ROWS = 60  # classes that are printed
PAIRS_SHOWN = 10  # most confused pairs of classes


def render(
    document: dict,
    galleries: dict[str, list[dict]] | None = None,
    pairs: list[list[dict]] | None = None,
    *,
    examples: dict[str, dict[tuple[int, int], list[dict]]] | None = None,
    training: dict[str, dict] | None = None,
) -> str:
    """The page. The same arguments give the same page.

    Args:
      document: see `metrics_document`; its tasks may have "robustness", see `robustness.curves`.
      galleries: {axis: galleries}, see `gallery.galleries`.
      pairs: pictures of near duplicates in other splits, see `gallery.pairs`.
      examples: {axis: {(true class, predicted class): images}}, see `gallery.examples`.
      training: {axis: plots of the run's training}, see `training_curves.read`.
    """
    tools: dict[str, Any] = {
        "plots": plots, "undefined": undefined, "damage_plots": damage_plots, "short": SHORT,
        "class_rows": class_rows, "printed_rows": PRINTED_ROWS, "page_size": PAGE_SIZE,
        "confusion": confusion_matrix.drawings, "csv_of": confusion_matrix.csv_of,
        "confused_pairs": confused_pairs, "was_trained_on": was_trained_on,
    }  # fmt: skip
    return page(
        "report.html", script=_text("page.js"), **document, **tools,
        galleries=galleries or {}, pairs=pairs or [], examples=examples or {}, training=training or {},
    )  # fmt: skip


def page(template: str, *, script: str = "", **values: Any) -> str:
    """Renders one of the templates in this folder; all text is escaped.

    The page's content security policy forbids everything that is not in the page, and every script but
    `script`, which is one of this package.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "number": number, "count": count, "counted": counted, "figure": figure
    }  # fmt: skip
    environment.tests["share"] = SHARES.__contains__
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    source = f"'sha256-{digest}'" if script else "'none'"
    return environment.get_template(template).render(
        titles=metrics.TITLES, script=markupsafe.Markup(script), script_source=markupsafe.Markup(source),
        **values,
    )  # fmt: skip


def _text(name: str) -> str:
    return importlib.resources.files("deepduel.reports").joinpath(name).read_text("utf-8")


def percent(value: float | None, digits: int = 1) -> str:
    """0.98765 -> "98.8 %"; a value below 1 never rounds to 100 %."""
    if value is None:
        return "–"
    shown = round(value * 100, digits)
    if shown == 100 and value < 1:
        return f"> {100 - 10**-digits:.{digits}f} %"
    return f"{shown:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """0.98765 -> "0.988"."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """12345 -> "12,345"."""
    return f"{value:,}"


def figure(value: float | None, name: str) -> str:
    """A metric's value as text: shares in percent, other metrics as numbers."""
    return percent(value) if name in SHARES else number(value)


def was_trained_on(split: str) -> bool:
    """Whether a split is training data by its name. Of one such as train[80%:] that is not known."""
    return split_names.role(split) == split_names.TRAIN and "[" not in split


def undefined(task: dict) -> list[tuple[str, list[str]]]:
    """Figures that are undefined for a task's images, as (reason, titles).

    Figures that exist for two classes only are not listed for tasks with more classes.
    """
    titles: dict[str, list[str]] = {}
    for name, note in task["overall"].get("notes", {}).items():
        if len(task["classes"]) == 2 or name not in metrics.FALSE_POSITIVE_RATES:
            titles.setdefault(note, []).append(metrics.TITLES[name])
    return list(titles.items())


def class_rows(task: dict) -> list[dict]:
    """The rows of the table by class: its name, its scores, and what it is most often mistaken for.

    They are in label order where all of them are printed, else by rising F1.
    """
    rows = []
    for index, (name, scores) in enumerate(task["class_scores"].items()):
        counts = task["confusion"][index]
        wrong = {other: number for other, number in enumerate(counts) if other != index}
        most = max(wrong, key=lambda other: wrong[other])
        images = scores["images"]
        rows.append({
            "name": name, **scores, "mistaken": task["classes"][most] if wrong[most] else "",
            "times": wrong[most], "interval": metrics.wilson(counts[index], images) if images else None,
        })  # fmt: skip
    if len(rows) > PRINTED_ROWS:
        rows.sort(key=lambda row: (row["f1"] is None, row["f1"]))
    return rows


def confused_pairs(task: dict) -> list[confusion_matrix.ConfusedPair]:
    """The most confused pairs of classes of a task that the page shows."""
    return confusion_matrix.confused_pairs(task["confusion"], PAIRS_SHOWN)


def plots(task: dict) -> list[dict]:
    """The plots of a task: {"title", "svg", "legend", "caption"}."""
    curves = task["curves"]
    drawn = []
    if "roc" in curves:
        negative, positive = task["classes"]
        roc, pr = curves["roc"], curves["precision_recall"]
        auc, ap = number(task["overall"]["auc"]), number(task["overall"]["average_precision"])
        drawn.append({
            "title": f"ROC: AUC {auc}",
            "svg": charts.lines(
                [charts.Series("", roc["false"], roc["true"])],
                charts.percent_axis(f"false positive rate, % of {negative}"),
                charts.percent_axis(f"true positive rate, % of {positive}"),
                label=f"ROC curve, area {auc}", diagonal=True),
            "legend": [], "caption": "Dashed: random guessing.",
        })  # fmt: skip
        drawn.append({
            "title": f"Precision and recall: average precision {ap}",
            "svg": charts.lines(
                [charts.Series("", pr["recall"], pr["precision"])],
                charts.percent_axis(f"recall, % of {positive}"),
                charts.percent_axis("precision, %"),
                label=f"precision over recall, average precision {ap}"),
            "legend": [], "caption": "",
        })  # fmt: skip
    bins = curves["reliability"]
    ece = percent(task["overall"]["ece"])
    drawn.append({
        "title": f"Calibration: ECE {ece}",
        "svg": charts.lines(
            [charts.Series("", bins["confidence"], bins["accuracy"], dots=True)],
            charts.percent_axis("confidence, %"), charts.percent_axis("accuracy, %"),
            label=f"reliability diagram, expected calibration error {ece}", diagonal=True),
        "legend": [],
        "caption": "Dashed: perfect calibration (accuracy equals confidence). Below the line: overconfident.",
    })  # fmt: skip
    if "histogram" in curves:
        positive = task["classes"][1]
        drawn.append({
            "title": "Predicted probabilities",
            "svg": charts.histogram(
                curves["histogram"], charts.percent_axis(f"probability of {positive}, %"),
                label=f"histogram of the probability of {positive}, by true class"),
            "legend": task["classes"], "caption": "One colour per true class.",
        })  # fmt: skip
    return drawn


def damage_plots(robustness: dict, chance: float) -> list[dict]:
    """The plots of a task's robustness: accuracy and, where defined, AUC against the level of damage."""
    drawn = []
    for kind, rows in robustness["kinds"].items():
        title, axis = DAMAGES[kind]
        clean = axis.ticks[-1 if axis.reverse else 0][0]
        levels = [clean if row["level"] is None else row["level"] for row in rows]
        names = [name for name in ("accuracy", "auc") if all(row[name] is not None for row in rows)]
        series = [
            charts.Series(metrics.TITLES[name], levels, [row[name] for row in rows], dots=True)
            for name in names
        ]
        lowest = min(min(each.y) for each in series)
        start, end = (rows[0]["accuracy"], rows[-1]["accuracy"])
        label = f"{title}: accuracy falls from {percent(start)} to {percent(end)}"
        drawn.append({
            "title": title,
            "svg": charts.lines(
                series, axis, charts.span_axis("%", [lowest, chance]), label=label, level=chance),
            "legend": [each.name for each in series],
            "caption": f"Accuracy {percent(start)} on the left, {percent(end)} on the right. Dashed: chance.",
        })  # fmt: skip
    return drawn
