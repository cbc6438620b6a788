"""A comparison -> one HTML file that needs no other and no network, in the style of the report."""

import pathlib

from deepduel.decoding.split import Split
from deepduel.evaluation import comparison, metrics
from deepduel.reports import charts, report_page
from deepduel.reports.thumbnail import data_url
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records

_PROVENANCE = (
    "workdir", "data_name", "data_dir", "data_sha256", "trained_on_sha256", "model_sha256", "flags",
    "seed_of_the_run", "image_size", "fit", "images_per_second", "device", "machine", "versions", "date",
)  # fmt: skip


def render(document: dict, pictures: dict[str, str] | None = None, note: str = "") -> str:
    """The page. The same arguments give the same page.

    Args:
      document: see `compare.document`.
      pictures: {key: data URL} of the images among the disagreements.
      note: why there are none.
    """
    names = run_names(document)
    shown = [name for name in _PROVENANCE if any(name in about for about in document["about"])]
    return report_page.page(
        "comparison.html", **document, names=names, plots=plots, verdict=comparison.verdict,
        short=report_page.SHORT, smaller=metrics.SMALLER_IS_BETTER, pictures=pictures or {},
        note=note, provenance=shown,
    )  # fmt: skip


def run_names(document: dict) -> list[str]:
    """What to call the two runs: their folders' names, with as much of the path as tells them apart."""
    paths = [pathlib.Path(run).resolve().parts for run in document["runs"]]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if names[0] != names[1]:
            return names
    return ["/".join(parts[-1:]) for parts in paths]


def plots(task: dict) -> list[dict]:
    """Both runs' curves: {"title", "svg", "legend", "caption"}."""
    found = []
    if all("roc" in curves for curves in task["curves"]):
        negative, positive = task["classes"]
        found.append({
            "title": "ROC",
            "svg": charts.lines(
                [charts.Series("", each["roc"]["false"], each["roc"]["true"]) for each in task["curves"]],
                charts.percent_axis(f"false positive rate, % of {negative}"),
                charts.percent_axis(f"true positive rate, % of {positive}"),
                label="ROC curves of both runs", diagonal=True),
            "legend": ["A", "B"], "caption": "Dashed: random guessing.",
        })  # fmt: skip
    bins = [curves["reliability"] for curves in task["curves"]]
    found.append({
        "title": "Calibration",
        "svg": charts.lines(
            [charts.Series("", each["confidence"], each["accuracy"], dots=True) for each in bins],
            charts.percent_axis("confidence, %"), charts.percent_axis("accuracy, %"),
            label="reliability diagrams of both runs", diagonal=True),
        "legend": ["A", "B"],
            "caption": "Dashed: perfect calibration (accuracy equals confidence).",
    })  # fmt: skip
    return found


def pictures(document: dict, data_dir: str | None = None) -> tuple[dict[str, str], str]:
    """Pictures of the images among the disagreements, from the shards they were evaluated on.

    Args:
      data_dir: where the shards lie now; None: where they lay.

    Returns:
      ({key: data URL}, "" or why some are missing).
    """
    wanted = {
        image["key"]
        for task in document["tasks"].values()
        for images in task["disagreements"].values()
        for image in images
    }
    folder = data_dir or document["about"][0].get("data_dir", "")
    found: dict[str, str] = {}
    if not wanted:
        return found, ""
    try:
        split = Split(folder, document["split"])
        for number in range(len(split)):
            key = records.key_text(split.key(number))
            if key in wanted:
                found[key] = data_url(split.pixels(number))
            if len(found) == len(wanted):
                return found, ""
    except (DataError, UsageError) as error:
        return (
            found,
            f"Shown without images; the shards cannot be read: {error}. Set --data_dir to their folder.",
        )
    return (
        found,
        f"{folder} lacks {len(wanted) - len(found)} of the images; set --data_dir to their folder.",
    )
