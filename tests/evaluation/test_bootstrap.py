"""Bootstrap: weighted figures equal scikit-learn's, intervals hold what they promise."""

import numpy as np
import pytest
from sklearn import metrics as sk

from deepduel.evaluation import bootstrap, metrics

pytestmark = pytest.mark.numeric


def _random(seed, count, classes, *, decimals=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    probabilities = np.exp(rng.normal(0, 1, (count, classes)) + np.eye(classes)[labels])
    probabilities /= probabilities.sum(1, keepdims=True)
    if decimals is not None:  # many equal scores
        first = probabilities[:, 1].round(decimals)
        probabilities = np.stack([1 - first, first], 1)
    return labels, probabilities


@pytest.mark.parametrize("decimals", [None, 1], ids=["distinct", "ties"])
def test_weighted_figures_equal_scikit_learns_with_sample_weight(decimals):
    labels, probabilities = _random(0, 150, 2, decimals=decimals)
    weights = np.random.default_rng(1).integers(0, 4, (3, 150)).astype(float)
    values = bootstrap.weighted(labels, probabilities, weights)
    scores, predicted = probabilities[:, 1], probabilities.argmax(1)
    for row, weight in enumerate(weights):
        false, true, _ = sk.roc_curve(labels, scores, sample_weight=weight, drop_intermediate=False)
        expected = {
            "accuracy": sk.accuracy_score(labels, predicted, sample_weight=weight),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, sample_weight=weight),
            "auc": sk.roc_auc_score(labels, scores, sample_weight=weight),
            "average_precision": sk.average_precision_score(labels, scores, sample_weight=weight),
            "log_loss": sk.log_loss(labels, probabilities, sample_weight=weight),
            "brier": sk.brier_score_loss(labels, scores, sample_weight=weight),
            "tpr_at_fpr_1": true[false <= 0.01].max(),
            "tpr_at_fpr_5": true[false <= 0.05].max(),
        }
        for name, value in expected.items():
            assert values[name][row] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("classes", [2, 4])
def test_weights_of_one_give_the_plain_figures(classes):
    labels, probabilities = _random(2, 300, classes)
    weighted = bootstrap.weighted(labels, probabilities, np.ones((1, 300)))
    plain = metrics.score(labels, probabilities).values
    assert set(weighted) == {name for name, value in plain.items() if value is not None}
    for name, values in weighted.items():
        assert values[0] == pytest.approx(plain[name], abs=1e-9), name


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(100):
        right = np.random.default_rng(seed).random(200) < 0.8
        probabilities = np.stack([np.where(right, 0.9, 0.1), np.where(right, 0.1, 0.9)], 1)
        low, high = bootstrap.intervals(np.zeros(200, int), probabilities, replicates=300)["accuracy"]
        covered += low <= 0.8 <= high
    assert 88 <= covered <= 100


def test_the_same_images_give_the_same_intervals():
    labels, probabilities = _random(3, 80, 2)
    assert bootstrap.intervals(labels, probabilities) == bootstrap.intervals(labels, probabilities)
    assert bootstrap.intervals(labels, probabilities, replicates=0) == {}


def test_chunks_do_not_change_the_result(monkeypatch):
    labels, probabilities = _random(4, 50, 3)
    at_once = bootstrap.intervals(labels, probabilities, replicates=60)
    monkeypatch.setattr(bootstrap, "_CHUNK", 50 * 7)
    chunked = bootstrap.intervals(labels, probabilities, replicates=60)
    assert chunked.keys() == at_once.keys()
    for name, interval in at_once.items():
        assert chunked[name] == pytest.approx(interval), name


def test_a_single_class_has_an_interval_of_accuracy_and_none_of_auc():
    _, probabilities = _random(5, 60, 2)
    intervals = bootstrap.intervals(np.ones(60, int), probabilities, replicates=50)
    assert "accuracy" in intervals and "auc" not in intervals


def test_many_images_take_fewer_drawings_and_keep_the_interval(monkeypatch):
    labels, probabilities = _random(6, 5000, 2)
    full = bootstrap.intervals(labels, probabilities)["accuracy"]
    monkeypatch.setattr(bootstrap, "MAX_DRAWN", 1)
    drawings = []
    plain = bootstrap.weighted
    monkeypatch.setattr(bootstrap, "weighted", lambda *a: drawings.append(len(a[2])) or plain(*a))
    fewer = bootstrap.intervals(labels, probabilities)["accuracy"]
    assert sum(drawings) == 200
    assert fewer == pytest.approx(full, abs=0.004)
