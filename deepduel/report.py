"""The document of metrics.json -> report.html: one file that needs no other and no network."""

import importlib.resources

import jinja2

from deepduel import charts, metrics


def render(document: dict) -> str:
    """The page. The same document gives the same page."""
    template = importlib.resources.files("deepduel").joinpath("report.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number, "count": count, "figure": figure}
    environment.globals |= {"titles": metrics.TITLES, "plots": plots}
    return environment.from_string(template).render(document)


def percent(value: float | None, digits: int = 1) -> str:
    """0.98765 -> "98.8 %"; only what is all of them says 100 %."""
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
    """A metric's value the way it is read: shares in percent, the rest as numbers."""
    shares = ("accuracy", "balanced_accuracy", "ece", *metrics.FALSE_POSITIVE_RATES)
    return percent(value) if name in shares else number(value)


def plots(task: dict) -> list[dict]:
    """The plots of a task: {"title", "svg", "legend", "caption"}."""
    curves = task["curves"]
    found = []
    if "roc" in curves:
        negative, positive = task["classes"]
        roc, pr = curves["roc"], curves["precision_recall"]
        auc, ap = number(task["overall"]["auc"]), number(task["overall"]["average_precision"])
        found.append({
            "title": f"ROC: AUC {auc}",
            "svg": charts.lines(
                [charts.Series("", roc["false"], roc["true"])],
                charts.percent_axis(f"% of {negative} called {positive}"),
                charts.percent_axis(f"% of {positive} found"),
                label=f"ROC curve, area {auc}", diagonal=True),
            "legend": [], "caption": "Dashed: guessing.",
        })  # fmt: skip
        found.append({
            "title": f"Precision and recall: {ap} on average",
            "svg": charts.lines(
                [charts.Series("", pr["recall"], pr["precision"])],
                charts.percent_axis(f"% of {positive} found (recall)"),
                charts.percent_axis(f"% right when it says {positive}"),
                label=f"precision over recall, average precision {ap}"),
            "legend": [], "caption": "",
        })  # fmt: skip
    bins = curves["reliability"]
    ece = percent(task["overall"]["ece"])
    found.append({
        "title": f"Calibration: off by {ece}",
        "svg": charts.lines(
            [charts.Series("", bins["confidence"], bins["accuracy"], dots=True)],
            charts.percent_axis("confidence, %"), charts.percent_axis("right, %"),
            label=f"reliability diagram, expected calibration error {ece}", diagonal=True),
        "legend": [],
        "caption": "On the dashed line the model is right as often as it says. Below it: too sure of itself.",
    })  # fmt: skip
    if "histogram" in curves:
        positive = task["classes"][1]
        found.append({
            "title": "How sure it is",
            "svg": charts.histogram(
                curves["histogram"], charts.percent_axis(f"probability of {positive}, %"),
                label=f"histogram of the probability of {positive}, by true class"),
            "legend": task["classes"], "caption": "Each colour: the images that truly are so.",
        })  # fmt: skip
    return found
