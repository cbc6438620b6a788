"""The table of `what_helps`: results of (row, seed)s -> Markdown -> between two marks of a README."""

import pathlib
import statistics

from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError

_DAMAGES = {"JPEG 50": ("jpeg", "50"), "blur 1 px": ("blur", "1.0")}


def render(results: list[dict], titles: dict[str, str], *, seeds: int, base: str) -> str:
    """Markdown with a line for each row that has all its seeds; the others are named below."""
    runs = {name: [result for result in results if result["row"] == name] for name in titles}
    whole = [name for name in titles if len(runs[name]) == seeds]
    missing = [name for name in titles if name not in whole]
    lines = [
        "| | flagfile | accuracy, % | against the base, points | AUC | "
        + " | ".join(f"{title}, %" for title in _DAMAGES)
        + " | processor s |",
        "|---|---|---|---|---|" + "---|" * len(_DAMAGES) + "---|",
    ]
    for name in whole:
        cells = [
            titles[name],
            f"`{name}`",
            _spread([100 * result["accuracy"] for result in runs[name]]),
            "" if name == base or base not in whole else _difference(runs[name], runs[base]),
            _spread([result["auc"] for result in runs[name]], digits=4),
            *(
                _spread([100 * result["robustness"][kind][level] for result in runs[name]], digits=1)
                for kind, level in _DAMAGES.values()
            ),
            _seconds(runs[name]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if whole:
        some = runs[whole[0]][0]
        lines += [
            "",
            f"Mean ± standard deviation over {seeds} seeds, after {some['epochs']} epochs; "
            f"{some['images']:,} validation images, {some['robustness_images']:,} of them damaged.",
            "Against the base: the mean of the differences with the same seed, and the lowest and highest.",
        ]
    if missing:
        lines += ["", f"Not (or not with all seeds) trained: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def _difference(runs: list[dict], base: list[dict]) -> str:
    of_base = {result["seed"]: result["accuracy"] for result in base}
    points = [100 * (result["accuracy"] - of_base[result["seed"]]) for result in runs]
    return f"{statistics.mean(points):+.2f} ({min(points):+.2f} … {max(points):+.2f})"


def _seconds(runs: list[dict]) -> str:
    """Of training; of those that were not interrupted."""
    seconds = [result["processor_seconds"] for result in runs if result["processor_seconds"] is not None]
    return f"{statistics.median(seconds):.0f}" if seconds else "-"


def check(readme: pathlib.Path, marker: str) -> None:
    """Raises DataError unless the file has a place for the table."""
    _around(readme, marker)


def publish(readme: pathlib.Path, marker: str, table: str) -> None:
    """Puts the table into its place, by rename. Raises DataError when there is none."""
    before, after = _around(readme, marker)
    with published(readme) as file:
        file.write(f"{before}<!-- {marker} -->\n{table}<!-- /{marker} -->{after}")


def _around(readme: pathlib.Path, marker: str) -> tuple[str, str]:
    first, last = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    text = readme.read_text("utf-8") if readme.is_file() else ""
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise DataError(
            f"{readme}: must have the lines '{first}' and '{last}', once, for the table to go between"
        )
    return text.split(first)[0], text.split(last)[1]
