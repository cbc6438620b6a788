"""How far the figures would move with other images of the same kind: bootstrap intervals.

Images are drawn with replacement, all figures computed anew on each drawing, and the middle 95 %
kept (percentile bootstrap; Efron & Tibshirani 1993, ch. 13). A drawing is a count per image, and
every metric here is written for counts as weights, over many drawings at once; each equals
scikit-learn's with `sample_weight`.
"""

from collections.abc import Iterator

import numpy as np

from deepduel.evaluation import metrics

REPLICATES = 1000
_LEAST, _MOST_DRAWN = 200, 10_000_000  # many images need fewer drawings: the interval is smooth then
_CHUNK = 4_000_000  # counts held at a time


def intervals(
    labels: np.ndarray, probabilities: np.ndarray, *, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, list[float]]:
    """95 % intervals [low, high] by metric name, for the metrics that the images define.

    Args:
      labels: int [N], N >= 1.
      probabilities: float [N, C].
      replicates: drawings; 0 gives no intervals. From 10,000 images on fewer are made, at least 200.
      seed: of the drawings.
    """
    labels, probabilities = metrics.checked(labels, probabilities)
    drawings = _drawings(len(labels), replicates, seed)
    return _middle([weighted(labels, probabilities, weights) for weights in drawings])


def differences(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95 % intervals of second minus first, two models' figures on the same images, drawn together.

    Args: see `intervals`; `first`, `second` are probabilities.
    """
    labels, first = metrics.checked(labels, first)
    _, second = metrics.checked(labels, second)
    parts = []
    for weights in _drawings(len(labels), replicates, seed):
        one, other = (weighted(labels, each, weights) for each in (first, second))
        parts.append({name: other[name] - one[name] for name in one})
    return _middle(parts)


def _drawings(count: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `count` images counts in each drawing: float [some, count], some at a time."""
    if not replicates or not count:
        return
    replicates = min(replicates, max(_LEAST, _MOST_DRAWN // count))
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    for start in range(0, replicates, rows):
        drawn = rng.integers(0, count, (min(rows, replicates - start), count))
        yield np.stack([np.bincount(one, minlength=count) for one in drawn]).astype(np.float64)


def _middle(parts: list[dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """The middle 95 % of each figure over all drawings; of those that half of them define."""
    found = {}
    for name in parts[0] if parts else ():
        values = np.concatenate([part[name] for part in parts])
        finite = values[np.isfinite(values)]  # a drawing without one of the classes has no AUC
        if len(finite) >= len(values) / 2:
            found[name] = [float(value) for value in np.percentile(finite, (2.5, 97.5))]
    return found


def weighted(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric under several weightings of the images.

    Args:
      weights: float [R, N], how often each image counts in each of R drawings.

    Returns:
      {metric: float [R]}, NaN where a drawing does not define it.
    """
    classes = probabilities.shape[1]
    right = probabilities.argmax(1) == labels
    truth = np.eye(classes)[labels]
    total = weights.sum(1)
    clipped = probabilities.clip(np.finfo(np.float64).eps, 1)
    per_image = np.stack(
        [right, -np.log(clipped[np.arange(len(labels)), labels]), metrics.brier(labels, probabilities)], 1
    )
    means = weights @ per_image / total[:, None]
    bins = np.eye(metrics.BINS)[metrics.confidence_bins(probabilities.max(1))]
    gaps = weights @ (bins * (right - probabilities.max(1))[:, None])
    with np.errstate(invalid="ignore"):
        recalls = (weights @ (truth * right[:, None])) / (weights @ truth)
    found = {
        "accuracy": means[:, 0],
        "balanced_accuracy": np.nanmean(recalls, 1),
        "log_loss": means[:, 1],
        "brier": means[:, 2],
        "ece": np.abs(gaps).sum(1) / total,
    }
    if not truth.any(0).all():
        return found
    if classes == 2:
        return found | ranked(labels == 1, probabilities[:, 1], weights)
    each = [ranked(labels == number, probabilities[:, number], weights) for number in range(classes)]
    return found | {name: np.mean([one[name] for one in each], 0) for name in ("auc", "average_precision")}


def ranked(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """AUC, average precision and true positive rates of scores, {metric: float [R]}.

    Args:
      positive: bool [N].
      scores: float [N], higher for positives.
      weights: float [R, N].
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of runs of equal scores
    drawn = weights[:, order].astype(np.float32)  # exact: counts stay below 2**24
    true = np.cumsum(drawn * positive[order], 1)[:, ends].astype(np.float64)
    false = np.cumsum(drawn, 1)[:, ends] - true
    zero = np.zeros((len(weights), 1))
    true, false = np.hstack([zero, true]), np.hstack([zero, false])
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr, fpr = true / true[:, -1:], false / false[:, -1:]
        precision = np.nan_to_num(true / (true + false))
        undefined = ~np.isfinite(tpr[:, -1] + fpr[:, -1])
    steps = np.diff(fpr, axis=1)
    found = {
        "auc": (steps * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(1),
        "average_precision": (np.diff(tpr, axis=1) * precision[:, 1:]).sum(1),
    }
    for name, rate in metrics.FALSE_POSITIVE_RATES.items():
        found[name] = np.where(fpr <= rate, tpr, 0).max(1)
    return {name: np.where(undefined, np.nan, values) for name, values in found.items()}
