"""Labels and probabilities -> points of the curves and histograms that the report draws.

labels         int   [N]      0 … C-1
probabilities  float [N, C]   rows sum to 1
"""

from typing import Any

import numpy as np

from deepduel.evaluation import metrics

POINTS = 200  # maximum per curve
HISTOGRAM_BINS = 40


def document(labels: np.ndarray, probabilities: np.ndarray) -> dict:
    """The "curves" of a task in metrics.json.

    Returns:
      {"reliability": {"confidence", "accuracy", "images"}: lists, one value per bin that is not empty};
      with two classes also "histogram": [counts of the negative class, of the positive class] over the
      probability of the positive class; and, if both classes occur, see `metrics.ranking_curves`.
    """
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
