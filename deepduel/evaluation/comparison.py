"""Compares two runs on the same images: SavedEvaluation, SavedEvaluation -> the comparison as a document.

McNemar's exact test (McNemar 1947) considers only the images that one run predicts correctly and the other
does not; if both runs are equally good, either outcome has probability 1/2. In addition the metrics of both
runs are given, with a 95 % interval of each difference from a paired bootstrap.
"""

import numpy as np
from scipy import stats

from deepduel.evaluation import bootstrap, curves, metrics
from deepduel.evaluation.saved_evaluation import SavedEvaluation, TaskPredictions
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.progress import counted

FORMAT = "deepduel-comparison"
FORMAT_VERSION = 1
DISAGREEMENTS = 12  # images listed for each run that is correct
_REPLICATES = 2000


def document(
    first: SavedEvaluation, second: SavedEvaluation, *, replicates: int = bootstrap.REPLICATES
) -> dict:
    """Compares the predictions of two saved evaluations.

    Args:
      replicates: number of bootstrap samples for the intervals of the differences; 0 leaves them out.

    Returns:
      {"format", "format_version", "split", "runs": [first, second],
       "about": [first's, second's], see `provenance.about`,
       "tasks": {AXIS: see `mcnemar`, and {
          "classes",
          "figures": {figure: {"values": [first, second], "difference": second minus first,
                               "interval": 95 % interval of the difference}}, null where undefined,
          "cells": {"real/animals": see `mcnemar`}, for each combination of the tasks' true labels,
          "disagreements": {"only_first_right", "only_second_right":
             [{"key", "truth", "answers": [first, second], "probabilities": [first, second]}]},
             with the predicted labels and their probabilities, the most confident disagreements first,
          "curves": [first, second], see `curves.document`}}}

    Raises:
      DataError: the runs were evaluated on different images or labels.
      UsageError: the runs have no task in common.
    """
    axes = [axis for axis in first.tasks if axis in second.tasks]
    if not axes:
        raise UsageError(
            f"{first.workdir} ({', '.join(first.tasks)}) and {second.workdir} "
            f"({', '.join(second.tasks)}) share no task; name two runs with a common label axis"
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
    """Both runs' predictions on an axis, with the images and the classes in the same order."""
    one, other = first.tasks[axis], second.tasks[axis]
    runs = f"{first.workdir} and {second.workdir}"
    indices = {key: index for index, key in enumerate(other.keys)}
    differing = len(indices.keys() ^ set(one.keys))
    if differing or not one.keys:
        raise DataError(
            f"{runs} were evaluated on different images of {axis} ({differing:,} not in both); "
            "evaluate both with the same --data_dir and --split"
        )
    if set(one.classes) != set(other.classes):
        raise DataError(
            f"{runs} were trained on different labels of {axis} ({', '.join(one.classes)}; "
            f"{', '.join(other.classes)}); name two runs of the same classes"
        )
    other = other.only([indices[key] for key in one.keys]).renumbered(one.classes)
    relabelled = np.flatnonzero(one.labels != other.labels)
    if len(relabelled):
        key, label, other_label = (
            one.keys[relabelled[0]],
            one.labels[relabelled[0]],
            other.labels[relabelled[0]],
        )
        raise DataError(
            f"{runs} were evaluated with different labels of {key} ({one.classes[label]}, "
            f"{one.classes[other_label]}); evaluate both with the same --data_dir"
        )
    return one, other


def _task(pairs: dict[str, tuple[TaskPredictions, TaskPredictions]], axis: str, replicates: int) -> dict:
    one, other = pairs[axis]
    first, second = one.predicted == one.labels, other.predicted == one.labels
    return {
        **mcnemar(first, second),
        "classes": list(one.classes),
        "figures": _figures(one, other, replicates),
        "cells": {name: mcnemar(first[mask], second[mask]) for name, mask in _cells(pairs, axis).items()},
        "disagreements": {
            "only_first_right": _disagreements(one, other, first & ~second),
            "only_second_right": _disagreements(one, other, ~first & second),
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


def _disagreements(one: TaskPredictions, other: TaskPredictions, disagree: np.ndarray) -> list[dict]:
    """The most confident of the images where `disagree`, bool [N], is True."""
    confidence = one.probabilities.max(1) + other.probabilities.max(1)
    numbers = np.flatnonzero(disagree)
    numbers = numbers[np.argsort(-confidence[numbers], kind="stable")][:DISAGREEMENTS]
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
    """McNemar's exact test of two classifiers on the same N >= 1 images.

    Args:
      first, second: bool [N], whether each classifier predicts each image correctly.

    Returns:
      {"images", "accuracy": [first, second], "both_right", "only_first_right", "only_second_right",
       "both_wrong", "difference": second minus first, "interval": 95 % interval of the difference,
       "p_value": two-sided}
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = stats.binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    difference = second.astype(float) - first
    rng = np.random.default_rng(0)
    # The difference has only three values, so a bootstrap sample is one multinomial draw of their counts.
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
    """The result of McNemar's test at a significance level of 5 %, in words."""
    if task["p_value"] >= 0.05:
        return "no significant difference"
    return "B is better" if task["difference"] > 0 else "A is better"


def table(document: dict) -> str:
    """The comparison as lines for a terminal."""
    first, second = document["runs"]
    lines = [f"A: {first}", f"B: {second}"]
    for axis, task in document["tasks"].items():
        (a, b), (low, high) = task["accuracy"], task["interval"]
        lines += [
            f"{axis}, {counted(task['images'], 'image')}: A {a:.2%}, B {b:.2%}, "
            f"B - A {task['difference'] * 100:+.2f} points (95 %: {low * 100:+.2f} to {high * 100:+.2f})",
            f"  only A correct {task['only_first_right']:,}, only B correct {task['only_second_right']:,}; "
            f"McNemar's exact p = {task['p_value']:.2g}: {verdict(task)}",
        ]
    return "\n".join(lines)
