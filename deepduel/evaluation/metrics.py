"""Labels and probabilities -> metrics of a classifier.

    labels         int   [N]      0 … C-1
    probabilities  float [N, C]   rows sum to 1

Values equal scikit-learn's wherever it has the metric. With two classes the second is the positive one
(for authenticity: fake), and the scores are its probabilities; with more, AUC and average precision are
macro averages of one class against the rest. A metric that the images do not define (the AUC where only
one class occurs) is None, and a note gives the reason.
"""

import dataclasses

import numpy as np
from sklearn import metrics as sk

BINS = 15  # equally wide bins of confidence (Guo et al. 2017, "On Calibration of Modern Neural Networks")
TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "average_precision": "Average precision",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "tpr_at_fpr_1": "True positives at 1 % false positives",
    "tpr_at_fpr_5": "True positives at 5 % false positives",
}
SMALLER_IS_BETTER = ("log_loss", "brier", "ece")
FALSE_POSITIVE_RATES = {"tpr_at_fpr_1": 0.01, "tpr_at_fpr_5": 0.05}


@dataclasses.dataclass(frozen=True)
class Score:
    """The metrics over one set of images.

    Attributes:
      images: number of images.
      values: {name in `TITLES`: value}; None where the images do not define the metric.
      notes: {name: the reason why its value is None}.
    """

    images: int
    values: dict[str, float | None]
    notes: dict[str, str]

    def document(self) -> dict:
        """The metrics as metrics.json holds them."""
        return {"images": self.images, **self.values, "notes": self.notes}


def score(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...] | None = None) -> Score:
    """Computes all metrics.

    Args:
      labels: int [N], 0 … C-1.
      probabilities: float [N, C].
      classes: names of the classes, used in the notes.

    Raises:
      ValueError: the shapes do not match, a label is out of range, or a row is no distribution.
    """
    labels, probabilities = checked(labels, probabilities)
    count, width = probabilities.shape
    names = classes or tuple(str(number) for number in range(width))
    if not count:
        return Score(0, dict.fromkeys(TITLES), dict.fromkeys(TITLES, "there are no images"))
    predicted = probabilities.argmax(1)
    present = np.bincount(labels, minlength=width) > 0
    values: dict[str, float | None] = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": recalls(labels, predicted, width)[present].mean(),
        **_ranking(labels, probabilities, present),
        "log_loss": sk.log_loss(labels, probabilities, labels=np.arange(width)),
        "brier": brier(labels, probabilities).mean(),
        "ece": calibration_error(reliability(labels, probabilities)),
        **_operating_points(labels, probabilities, present),
    }
    notes = {}
    for name in TITLES:
        if values[name] is None:
            absent = ", ".join(name for name, occurs in zip(names, present, strict=True) if not occurs)
            missing = f"needs images of every class, and there are none of {absent}"
            notes[name] = missing if absent else "is defined for two classes only"
    return Score(count, {name: _float(values[name]) for name in TITLES}, notes)


def checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int64 and probabilities as float64, rows normalised to 1. Raises ValueError, see `score`."""
    labels = np.asarray(labels, np.int64)
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"needs labels [N] and probabilities [N, C >= 2], got {labels.shape}, {probabilities.shape}"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        raise ValueError(
            f"labels must be 0 to {probabilities.shape[1] - 1}, got {labels.min()} to {labels.max()}"
        )
    sums = probabilities.sum(1, keepdims=True)
    if not (np.isfinite(sums).all() and (probabilities >= 0).all() and (abs(sums - 1) < 1e-3).all()):
        raise ValueError("probabilities must be finite, at least 0, and sum to 1 in each row")
    return labels, probabilities / sums


def recalls(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Recall of each class: float [classes], NaN for a class without images."""
    correct = np.bincount(labels[labels == predicted], minlength=classes)
    with np.errstate(invalid="ignore"):
        return correct / np.bincount(labels, minlength=classes)


def brier(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Brier score of each image, float [N].

    With two classes the squared error of the positive class' probability, 0..1; with more the sum of the
    squared errors of all classes, 0..2 (Brier 1950). Both are defined as in scikit-learn.
    """
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] - labels) ** 2
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1)


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, which is the probability of the predicted class.

    Attributes:
      count: int [BINS], images in each bin.
      confidence: float [BINS], their mean confidence, NaN in an empty bin.
      accuracy: float [BINS], NaN in an empty bin.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> Reliability:
    """Images binned by confidence: bin b holds b/BINS < confidence <= (b+1)/BINS."""
    confidence = probabilities.max(1)
    bins = confidence_bins(confidence)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, confidence, minlength=BINS) / count
        accuracy = np.bincount(bins, probabilities.argmax(1) == labels, minlength=BINS) / count
    return Reliability(count, mean, accuracy)


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """The bin of each confidence, int [N], 0 … BINS-1."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)


def calibration_error(bins: Reliability) -> float:
    """Expected calibration error: mean |accuracy - confidence| over the bins, weighted by images."""
    gaps = np.abs(np.nan_to_num(bins.accuracy) - np.nan_to_num(bins.confidence))
    return float((gaps * bins.count).sum() / bins.count.sum())


def class_scores(labels: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]) -> dict[str, dict]:
    """{class: {"images", "precision", "recall", "f1"}}; None where a value is 0 divided by 0."""
    numbers = np.arange(len(classes))
    figures = sk.precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=np.nan)
    return {
        name: {"images": int(support), "precision": _number(p), "recall": _number(r), "f1": _number(f)}
        for name, p, r, f, support in zip(classes, *figures, strict=True)
    }


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int [classes, classes]: number of images of the class (row) predicted as the class (column)."""
    return sk.confusion_matrix(labels, predicted, labels=np.arange(classes))


def _ranking(labels: np.ndarray, probabilities: np.ndarray, present: np.ndarray) -> dict[str, float | None]:
    if not present.all():
        return {"auc": None, "average_precision": None}
    if len(present) == 2:
        scores = probabilities[:, 1]
        return {
            "auc": sk.roc_auc_score(labels, scores),
            "average_precision": sk.average_precision_score(labels, scores),
        }
    truth = np.eye(len(present), dtype=int)[labels]
    return {
        "auc": sk.roc_auc_score(truth, probabilities, average="macro"),
        "average_precision": sk.average_precision_score(truth, probabilities, average="macro"),
    }


def _operating_points(
    labels: np.ndarray, probabilities: np.ndarray, present: np.ndarray
) -> dict[str, float | None]:
    """The highest true positive rate at a false positive rate of at most each of `FALSE_POSITIVE_RATES`."""
    if len(present) != 2 or not present.all():
        return dict.fromkeys(FALSE_POSITIVE_RATES)
    false, true, _ = sk.roc_curve(labels, probabilities[:, 1], drop_intermediate=False)
    return {name: true[false <= rate].max() for name, rate in FALSE_POSITIVE_RATES.items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _float(value: float | None) -> float | None:
    """A plain float for JSON; scikit-learn and NumPy return float64 scalars."""
    return None if value is None else float(value)


def ranking_curves(labels: np.ndarray, scores: np.ndarray, points: int) -> dict[str, dict[str, list[float]]]:
    """{"roc": {"false", "true"}, "precision_recall": {"recall", "precision"}} for two classes, both present.

    Args:
      scores: float [N], the positive class' probability.
      points: maximum number of points per curve, spread evenly along its length; the ends are kept.
    """
    false, true, _ = sk.roc_curve(labels, scores, drop_intermediate=True)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    thin = lambda x, y: _thinned(np.asarray(x, float), np.asarray(y, float), points)
    (false, true), (recall, precision) = thin(false, true), thin(recall[::-1], precision[::-1])
    return {
        "roc": {"false": false, "true": true},
        "precision_recall": {"recall": recall, "precision": precision},
    }


def _thinned(x: np.ndarray, y: np.ndarray, points: int) -> tuple[list[float], list[float]]:
    """About `points` of the points of a curve, spread evenly along its drawn length, with both ends."""
    if len(x) > points:
        along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)).clip(0, len(x) - 1))
        kept = np.union1d(kept, [0, len(x) - 1])
        x, y = x[kept], y[kept]
    return x.round(5).tolist(), y.round(5).tolist()


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of the share right / count, count > 0 (Wilson 1927); also valid at 0 % and 100 %."""
    z = 1.959963984540054
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
