"""What the report draws: points of ROC, precision-recall and reliability curves, and histograms."""

from typing import Any

import numpy as np

from deepduel.evaluation import metrics

POINTS = 200  # of a curve at most
HISTOGRAM_BINS = 40


def document(labels: np.ndarray, probabilities: np.ndarray) -> dict:
    """Points to draw: ROC, precision-recall, reliability, histogram of the positive class' probability."""
    bins = metrics.reliability(labels, probabilities)
    full = bins.count > 0
    drawn: dict[str, Any] = {
        "reliability": {
            "confidence": bins.confidence[full].tolist(),
            "accuracy": bins.accuracy[full].tolist(),
            "images": bins.count[full].tolist(),
        }
    }
    if probabilities.shape[1] != 2:
        return drawn
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    drawn["histogram"] = [np.histogram(probabilities[labels == c, 1], edges)[0].tolist() for c in (0, 1)]
    if len(np.unique(labels)) == 2:
        drawn |= metrics.ranking_curves(labels, probabilities[:, 1], POINTS)
    return drawn
