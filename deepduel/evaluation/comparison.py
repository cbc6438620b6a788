"""Two runs side by side, on the same images: is one better, or was it luck?

McNemar's exact test (McNemar 1947) looks only at the images that one run gets right and the other
wrong; under equal skill each is a toss of a coin. Beside it stand the figures of both, each
difference with a 95 % interval, from the same images drawn with replacement, in pairs.
"""

import numpy as np
from scipy import stats

from deepduel.evaluation import bootstrap, curves, metrics
from deepduel.evaluation.saved_evaluation import SavedEvaluation, TaskPredictions
from tfrecords_tools.errors import DataError, UsageError

FORMAT = "deepduel-comparison"
FORMAT_VERSION = 1
DISAGREEMENTS = 12  # images listed each way
_REPLICATES = 2000


def document(
    first: SavedEvaluation, second: SavedEvaluation, *, replicates: int = bootstrap.REPLICATES
) -> dict:
    """Compares the predictions that two evaluations left.

    Args:
      replicates: of the bootstrap of the figures' differences; 0 leaves the intervals out.

    Returns:
      {"format", "format_version", "split", "runs": [first, second],
       "about": [first's, second's], see `provenance.about`,
       "tasks": {AXIS: see `mcnemar`, and {
          "classes",
          "figures": {figure: {"values": [first, second], "difference": second minus first,
                               "interval": of the difference, 95 %}}, null where undefined,
          "cells": {"real/animals": see `mcnemar`}, per combination of the tasks' true labels,
          "disagreements": {"only_first_right", "only_second_right":
             [{"key", "truth", "answers": [first, second], "probabilities": of the answers}]},
             those first of which both are surest,
          "curves": [first, second], what the page draws}}}

    Raises:
      DataError: they were made on other images or labels.
      UsageError: the runs have no task in common.
    """
    axes = [axis for axis in first.tasks if axis in second.tasks]
    if not axes:
        raise UsageError(
            f"--compare: {first.workdir} ({', '.join(first.tasks)}) and {second.workdir} "
            f"({', '.join(second.tasks)}) share no task"
        )
    pairs = {axis: _aligned(first, second, axis) for axis in axes}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "split": first.split,
        "runs": [first.workdir, second.workdir],
        "about": [first.about, second.about],
        "tasks": {axis: _task(pairs, axis, replicates) for axis in axes},
    }


def _aligned(
    first: SavedEvaluation, second: SavedEvaluation, axis: str
) -> tuple[TaskPredictions, TaskPredictions]:
    """Both runs' answers on an axis, over the same images in the same order, classes numbered alike."""
    one, other = first.tasks[axis], second.tasks[axis]
    runs = f"{first.workdir} and {second.workdir}"
    places = {key: place for place, key in enumerate(other.keys)}
    differing = len(places.keys() ^ set(one.keys))
    if differing or not one.keys:
        raise DataError(
            f"--compare: {runs} were evaluated on different images of {axis} ({differing:,} not in both); "
            "evaluate both with the same --data_dir and --split"
        )
    if set(one.classes) != set(other.classes):
        raise DataError(
            f"--compare: {runs} learnt different labels of {axis} ({', '.join(one.classes)}; "
            f"{', '.join(other.classes)})"
        )
    other = other.only([places[key] for key in one.keys]).renumbered(one.classes)
    wrong = np.flatnonzero(one.labels != other.labels)
    if len(wrong):
        key, mine, theirs = one.keys[wrong[0]], one.labels[wrong[0]], other.labels[wrong[0]]
        raise DataError(
            f"--compare: {runs} disagree on what {key} truly is ({one.classes[mine]}, "
            f"{one.classes[theirs]}); evaluate both with the same --data_dir"
        )
    return one, other


def _task(pairs: dict[str, tuple[TaskPredictions, TaskPredictions]], axis: str, replicates: int) -> dict:
    one, other = pairs[axis]
    right = one.predicted == one.labels, other.predicted == one.labels
    return {
        **mcnemar(*right),
        "classes": list(one.classes),
        "figures": _figures(one, other, replicates),
        "cells": {
            name: mcnemar(right[0][here], right[1][here]) for name, here in _cells(pairs, axis).items()
        },
        "disagreements": {
            "only_first_right": _disagreements(one, other, right[0] & ~right[1]),
            "only_second_right": _disagreements(one, other, ~right[0] & right[1]),
        },
        "curves": [curves.document(each.labels, each.probabilities) for each in (one, other)],
    }


def _figures(one: TaskPredictions, other: TaskPredictions, replicates: int) -> dict[str, dict]:
    values = [metrics.score(one.labels, each.probabilities).values for each in (one, other)]
    intervals = bootstrap.differences(
        one.labels, one.probabilities, other.probabilities, replicates=replicates
    )
    figures = {}
    for name in metrics.TITLES:
        value, other_value = (each[name] for each in values)
        figures[name] = {
            "values": [value, other_value],
            "difference": None if value is None or other_value is None else other_value - value,
            "interval": intervals.get(name),
        }
    return figures


def _cells(pairs: dict[str, tuple[TaskPredictions, TaskPredictions]], axis: str) -> dict[str, np.ndarray]:
    """{"real/animals": mask over the axis' images}, by the true labels of all tasks."""
    keys = pairs[axis][0].keys
    names = []
    for one, _ in pairs.values():
        known = dict(zip(one.keys, one.labels.tolist(), strict=True))
        names.append([one.classes[known[key]] if key in known else "?" for key in keys])
    joined = np.array(["/".join(parts) for parts in zip(*names, strict=True)], object)
    return {name: joined == name for name in sorted(set(joined.tolist()))}


def _disagreements(one: TaskPredictions, other: TaskPredictions, where: np.ndarray) -> list[dict]:
    sure = one.probabilities.max(1) + other.probabilities.max(1)
    numbers = np.flatnonzero(where)
    numbers = numbers[np.argsort(-sure[numbers], kind="stable")][:DISAGREEMENTS]
    return [
        {
            "key": one.keys[number],
            "truth": one.classes[one.labels[number]],
            "answers": [one.classes[each.predicted[number]] for each in (one, other)],
            "probabilities": [float(each.probabilities[number].max()) for each in (one, other)],
        }
        for number in numbers.tolist()
    ]


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict:
    """Compares which images two classifiers got right: bool [N], bool [N], N >= 1.

    Returns:
      {"images", "accuracy": [first, second], "both_right", "only_first_right", "only_second_right",
       "both_wrong", "difference": second minus first, "interval": its 95 % interval,
       "p_value": McNemar's, exact, two-sided}
    """
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


def verdict(task: dict) -> str:
    """What McNemar's test says, in words."""
    if task["p_value"] >= 0.05:
        return "no difference that chance would not explain"
    return "B is better" if task["difference"] > 0 else "A is better"


def table(document: dict) -> str:
    """The comparison as lines for a terminal."""
    first, second = document["runs"]
    lines = [f"A: {first}", f"B: {second}"]
    for axis, task in document["tasks"].items():
        (a, b), (low, high) = task["accuracy"], task["interval"]
        lines += [
            f"{axis}, {task['images']:,} images: A {a:.2%}, B {b:.2%}, "
            f"B - A {task['difference'] * 100:+.2f} points (95 %: {low * 100:+.2f} to {high * 100:+.2f})",
            f"  only A right {task['only_first_right']:,}, only B right {task['only_second_right']:,}; "
            f"McNemar's exact p = {task['p_value']:.2g}: {verdict(task)}",
        ]
    return "\n".join(lines)
