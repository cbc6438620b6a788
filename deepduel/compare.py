"""Two runs side by side, on the same images: is one better, or was it luck?

McNemar's exact test (McNemar 1947) looks only at the images that one run gets right and the other
wrong; under equal skill each is a toss of a coin. Beside it stands the difference of the accuracies
with a 95 % interval, from the same images drawn with replacement, in pairs.
"""

import csv
import pathlib

import numpy as np
from scipy import stats

from tfrecords_tools.cli import DataError, UsageError

_REPLICATES = 2000


def read_predictions(workdir: str, split: str) -> dict[str, dict[str, tuple[str, str]]]:
    """RUN/evaluation/<split>/predictions.csv -> {axis: {key: (true label, predicted label)}}.

    Raises:
      DataError: the run was not evaluated on that split, or the file is damaged.
    """
    path = pathlib.Path(workdir, "evaluation", split, "predictions.csv")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            suffix = "_predicted"
            axes = [name.removesuffix(suffix) for name in reader.fieldnames or () if name.endswith(suffix)]
            found: dict = {axis: {} for axis in axes}
            for row in reader:
                for axis in axes:
                    if row[axis]:
                        found[axis][row["key"]] = row[axis], row[f"{axis}{suffix}"]
    except FileNotFoundError:
        raise DataError(
            f"--compare: {workdir} has no {path.relative_to(workdir)}; "
            f"run python -m deepduel.evaluate --workdir={workdir} --split={split} first"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: unreadable ({error}); evaluate the run again") from error
    if not axes:
        raise DataError(f"{path}: holds no predictions; evaluate the run again")
    return found


def document(first: str, second: str, split: str) -> dict:
    """Compares the predictions that two evaluations left.

    Returns:
      {"split", "runs": [first, second], "tasks": {axis: {"images", "accuracy": [first, second],
       "both_right", "only_first_right", "only_second_right", "both_wrong", "difference":
       second minus first, "interval": its 95 % interval, "p_value": McNemar's, exact, two-sided}}}

    Raises:
      DataError: an evaluation is missing, or they were made on other images or labels.
      UsageError: the runs have no task in common.
    """
    one, other = read_predictions(first, split), read_predictions(second, split)
    axes = [axis for axis in one if axis in other]
    if not axes:
        raise UsageError(
            f"--compare: {first} ({', '.join(one)}) and {second} ({', '.join(other)}) share no task"
        )
    tasks = {}
    for axis in axes:
        _require_same(one[axis], other[axis], f"{first} and {second}", axis)
        right = np.array([
            [one[axis][key][0] == one[axis][key][1], other[axis][key][0] == other[axis][key][1]]
            for key in one[axis]
        ])  # fmt: skip
        tasks[axis] = mcnemar(right[:, 0], right[:, 1])
    return {"split": split, "runs": [first, second], "tasks": tasks}


def _require_same(one: dict, other: dict, runs: str, axis: str) -> None:
    if one.keys() != other.keys() or not one:
        differing = len(one.keys() ^ other.keys())
        raise DataError(
            f"--compare: {runs} were evaluated on different images of {axis} ({differing:,} not in both); "
            "evaluate both with the same --data_dir and --split"
        )
    for key, (label, _) in one.items():
        if other[key][0] != label:
            raise DataError(
                f"--compare: {runs} disagree on what {key} truly is ({label}, {other[key][0]}); evaluate "
                "both with the same --data_dir"
            )


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict:
    """Compares which images two classifiers got right: bool [N], bool [N]."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = stats.binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    difference = second.astype(float) - first
    rng = np.random.default_rng(0)
    # Only three values occur, so a drawing of N images is one multinomial draw of their counts.
    counts = rng.multinomial(
        len(first),
        [only_first / len(first), 1 - discordant / len(first), only_second / len(first)],
        _REPLICATES,
    )
    means = (counts[:, 2] - counts[:, 0]) / len(first)
    return {
        "images": len(first),
        "accuracy": [float(first.mean()), float(second.mean())],
        "both_right": int((first & second).sum()),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": int((~first & ~second).sum()),
        "difference": float(difference.mean()),
        "interval": [float(value) for value in np.percentile(means, (2.5, 97.5))],
        "p_value": float(p_value),
    }


def table(document: dict) -> str:
    """The comparison as lines for a terminal."""
    first, second = document["runs"]
    lines = [f"A: {first}", f"B: {second}"]
    for axis, task in document["tasks"].items():
        (a, b), (low, high) = task["accuracy"], task["interval"]
        clear = "B is better" if task["difference"] > 0 else "A is better"
        verdict = clear if task["p_value"] < 0.05 else "no difference that chance would not explain"
        lines += [
            f"{axis}, {task['images']:,} images: A {a:.2%}, B {b:.2%}, "
            f"B - A {task['difference'] * 100:+.2f} points (95 %: {low * 100:+.2f} to {high * 100:+.2f})",
            f"  only A right {task['only_first_right']:,}, only B right {task['only_second_right']:,}; "
            f"McNemar's exact p = {task['p_value']:.2g}: {verdict}",
        ]
    return "\n".join(lines)
