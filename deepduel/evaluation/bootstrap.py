"""Bootstrap intervals: how much the metrics vary with the choice of images.

    labels         int   [N]      0 … C-1
    probabilities  float [N, C]   rows sum to 1
    weights        float [R, N]   how often each image is drawn in each of R bootstrap samples

Images are drawn with replacement, all metrics are computed on each sample, and the interval is from the
2.5th to the 97.5th percentile (percentile bootstrap; Efron & Tibshirani 1993, ch. 13). The metrics here
take weights and are computed for many samples at once; they equal scikit-learn's with `sample_weight`.
"""

from collections.abc import Iterator

import numpy as np

from deepduel.evaluation import metrics

REPLICATES = 1000
_MIN_REPLICATES = 200
MAX_DRAWN = 10_000_000  # images drawn over all samples; with many images fewer samples are enough
_CHUNK = 4_000_000  # weights in memory at a time


def intervals(
    labels: np.ndarray, probabilities: np.ndarray, *, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, list[float]]:
    """95 % intervals [low, high] by metric name, for the metrics that the images define.

    Args:
      labels: int [N], N >= 1.
      probabilities: float [N, C].
      replicates: number of bootstrap samples; 0 gives no intervals. Above 10,000 images fewer are drawn,
        but at least 200.
      seed: random seed of the samples.
    """
    labels, probabilities = metrics.checked(labels, probabilities)
    samples = _samples(len(labels), replicates, seed)
    return _percentiles([weighted(labels, probabilities, weights) for weights in samples])


def differences(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95 % intervals of the differences between two models' metrics, second minus first, on paired samples.

    Args:
      labels: int [N], N >= 1.
      first, second: float [N, C], the probabilities of each model.
      replicates, seed: see `intervals`.
    """
    labels, first = metrics.checked(labels, first)
    _, second = metrics.checked(labels, second)
    parts = []
    for weights in _samples(len(labels), replicates, seed):
        one, other = (weighted(labels, each, weights) for each in (first, second))
        parts.append({name: other[name] - one[name] for name in one})
    return _percentiles(parts)


def _samples(count: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yields the weights of the samples, float [R, count] with a total of `replicates` rows."""
    if not replicates or not count:
        return
    replicates = min(replicates, max(_MIN_REPLICATES, MAX_DRAWN // count))
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    for start in range(0, replicates, rows):
        drawn = rng.integers(0, count, (min(rows, replicates - start), count))
        yield np.stack([np.bincount(sample, minlength=count) for sample in drawn]).astype(np.float64)


def _percentiles(parts: list[dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """The middle 95 % of each metric over all samples, for metrics that at least half of them define."""
    intervals = {}
    for name in parts[0] if parts else ():
        values = np.concatenate([part[name] for part in parts])
        finite = values[np.isfinite(values)]  # a sample without one of the classes has no AUC
        if len(finite) >= len(values) / 2:
            intervals[name] = [float(value) for value in np.percentile(finite, (2.5, 97.5))]
    return intervals


def weighted(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """All metrics for each of R weightings of the images.

    Args:
      weights: float [R, N], the weight of each image.

    Returns:
      {metric: float [R]}, NaN where a sample does not define the metric.
    """
    classes = probabilities.shape[1]
    correct = probabilities.argmax(1) == labels
    truth = np.eye(classes)[labels]
    total = weights.sum(1)
    clipped = probabilities.clip(np.finfo(np.float64).eps, 1)
    per_image = np.stack(
        [correct, -np.log(clipped[np.arange(len(labels)), labels]), metrics.brier(labels, probabilities)], 1
    )
    means = weights @ per_image / total[:, None]
    bins = np.eye(metrics.BINS)[metrics.confidence_bins(probabilities.max(1))]
    gaps = weights @ (bins * (correct - probabilities.max(1))[:, None])
    with np.errstate(invalid="ignore"):
        recalls = (weights @ (truth * correct[:, None])) / (weights @ truth)
    values = {
        "accuracy": means[:, 0],
        "balanced_accuracy": np.nanmean(recalls, 1),
        "log_loss": means[:, 1],
        "brier": means[:, 2],
        "ece": np.abs(gaps).sum(1) / total,
    }
    if not truth.any(0).all():
        return values
    if classes == 2:
        return values | ranked(labels == 1, probabilities[:, 1], weights)
    by_class = [ranked(labels == number, probabilities[:, number], weights) for number in range(classes)]
    macro = ("auc", "average_precision")
    return values | {name: np.mean([each[name] for each in by_class], 0) for name in macro}


def ranked(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """AUC, average precision and true positive rates at fixed false positive rates: {metric: float [R]}.

    Args:
      positive: bool [N].
      scores: float [N], higher for positives.
      weights: float [R, N].
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(
        np.flatnonzero(np.diff(scores[order])), len(order) - 1
    )  # the last of each run of equal scores
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
    values = {
        "auc": (steps * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(1),
        "average_precision": (np.diff(tpr, axis=1) * precision[:, 1:]).sum(1),
    }
    for name, rate in metrics.FALSE_POSITIVE_RATES.items():
        values[name] = np.where(fpr <= rate, tpr, 0).max(1)
    return {name: np.where(undefined, np.nan, each) for name, each in values.items()}
