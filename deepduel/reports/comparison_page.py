"""A comparison of two runs -> one HTML file that needs no other file and no network."""

import pathlib

from deepduel.decoding.split import Split
from deepduel.evaluation import comparison, metrics
from deepduel.networks.run_card import RunCard
from deepduel.reports import charts, report_page
from deepduel.reports.thumbnail import data_url
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest, records, split_names

_PROVENANCE = (
    "workdir", "data_name", "data_dir", "data_sha256", "trained_on_sha256", "model_sha256", "flags",
    "seed_of_the_run", "image_size", "fit", "images_per_second", "device", "machine", "versions", "date",
)  # fmt: skip


def render(document: dict, pictures: dict[str, str] | None = None, note: str = "") -> str:
    """The page. The same arguments give the same page.

    Args:
      document: see `comparison.document`.
      pictures: {key: data URL} of the images that the runs disagree on.
      note: the reason why pictures are missing; "" if none is.
    """
    names = run_names(document)
    shown = [name for name in _PROVENANCE if any(name in about for about in document["about"])]
    return report_page.page(
        "comparison.html", **document, names=names, plots=plots, verdict=comparison.verdict,
        short=report_page.SHORT, smaller=metrics.SMALLER_IS_BETTER, pictures=pictures or {},
        note=note, provenance=shown,
    )  # fmt: skip


def run_names(document: dict) -> list[str]:
    """Short names of the two runs: their folders' names, with as many parent folders as needed to differ."""
    paths = [pathlib.Path(run).resolve().parts for run in document["runs"]]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if names[0] != names[1]:
            return names
    return ["/".join(parts[-1:]) for parts in paths]


def plots(task: dict) -> list[dict]:
    """The plots of a task, with the curves of both runs: {"title", "svg", "legend", "caption"}."""
    drawn = []
    if all("roc" in curves for curves in task["curves"]):
        negative, positive = task["classes"]
        drawn.append({
            "title": "ROC",
            "svg": charts.lines(
                [charts.Series("", each["roc"]["false"], each["roc"]["true"]) for each in task["curves"]],
                charts.percent_axis(f"false positive rate, % of {negative}"),
                charts.percent_axis(f"true positive rate, % of {positive}"),
                label="ROC curves of both runs", diagonal=True),
            "legend": ["A", "B"], "caption": "Dashed: random guessing.",
        })  # fmt: skip
    bins = [curves["reliability"] for curves in task["curves"]]
    drawn.append({
        "title": "Calibration",
        "svg": charts.lines(
            [charts.Series("", each["confidence"], each["accuracy"], dots=True) for each in bins],
            charts.percent_axis("confidence, %"), charts.percent_axis("accuracy, %"),
            label="reliability diagrams of both runs", diagonal=True),
        "legend": ["A", "B"],
            "caption": "Dashed: perfect calibration (accuracy equals confidence).",
    })  # fmt: skip
    return drawn


def pictures(document: dict, data_dir: str | None = None) -> tuple[dict[str, str], str]:
    """Pictures of the images that the runs disagree on, read from the shards that were evaluated.

    Args:
      data_dir: folder of the shards; None takes the folder that the first run was evaluated on.

    Returns:
      ({key: data URL}, the reason why some are missing or "").
    """
    wanted = {
        image["key"]
        for task in document["tasks"].values()
        for images in task["disagreements"].values()
        for image in images
    }
    folder = data_dir or document["about"][0].get("data_dir", "")
    pictures: dict[str, str] = {}
    if not wanted:
        return pictures, ""
    try:
        name = document["split"]
        if split_names.find(manifest.load(folder).splits, name) is None:
            name = RunCard.load(document["about"][0]["workdir"]).validation_split
        split = Split(folder, name)
        for number in range(len(split)):
            key = records.key_text(split.key(number))
            if key in wanted:
                pictures[key] = data_url(split.pixels(number))
            if len(pictures) == len(wanted):
                return pictures, ""
    except (DataError, UsageError) as error:
        return (
            pictures,
            f"Shown without images; the shards cannot be read: {error}. Set --data_dir to their folder.",
        )
    return (
        pictures,
        f"{folder} lacks {len(wanted) - len(pictures)} of the images; set --data_dir to their folder.",
    )
