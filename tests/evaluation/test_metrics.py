"""Metrics: equal to scikit-learn's on the same predictions, and honest where they are not defined."""

import numpy as np
import pytest
from sklearn import metrics as sk

from deepduel.evaluation import metrics

pytestmark = pytest.mark.numeric


def _random(seed: int, count: int, classes: int, *, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities that know something of each other; `coarse`: with many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    labels[:classes] = np.arange(classes)
    logits = rng.normal(0, 1, (count, classes)) + 1.2 * np.eye(classes)[labels]
    if coarse:
        logits = np.round(logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.astype(np.float32)


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("count", [2, 7, 500])
def test_binary_figures_equal_scikit_learns(count, coarse):
    labels, probabilities = _random(count, count, 2, coarse=coarse)
    values = metrics.score(labels, probabilities).values
    scores = (probabilities / probabilities.sum(1, keepdims=True))[:, 1].astype(float)
    predicted = probabilities.argmax(1)
    false, true, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "auc": sk.roc_auc_score(labels, scores),
        "average_precision": sk.average_precision_score(labels, scores),
        "log_loss": sk.log_loss(labels, np.stack([1 - scores, scores], 1)),
        "brier": sk.brier_score_loss(labels, scores),
        "tpr_at_fpr_1": true[false <= 0.01].max(),
        "tpr_at_fpr_5": true[false <= 0.05].max(),
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("classes", [3, 7])
def test_multi_class_figures_equal_scikit_learns(classes):
    labels, probabilities = _random(5, 400, classes)
    score = metrics.score(labels, probabilities)
    exact = probabilities.astype(float)
    exact /= exact.sum(1, keepdims=True)
    truth = np.eye(classes)[labels]
    expected = {
        "accuracy": sk.accuracy_score(labels, exact.argmax(1)),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, exact.argmax(1)),
        "auc": sk.roc_auc_score(labels, exact, multi_class="ovr"),
        "average_precision": sk.average_precision_score(truth, exact),
        "log_loss": sk.log_loss(labels, exact),
        "brier": ((exact - truth) ** 2).sum(1).mean(),
    }
    for name, value in expected.items():
        assert score.values[name] == pytest.approx(value, abs=1e-9), name
    assert score.values["tpr_at_fpr_1"] is None
    assert score.notes["tpr_at_fpr_1"] == "is defined for two classes only"


def test_a_single_class_has_accuracy_but_no_auc_and_says_why():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    score = metrics.score(np.zeros(3, int), probabilities, ("real", "fake"))
    assert score.values["accuracy"] == pytest.approx(2 / 3)
    assert score.values["balanced_accuracy"] == pytest.approx(2 / 3)
    assert score.values["log_loss"] == pytest.approx(-np.log([0.9, 0.2, 0.7]).mean())
    for name in ("auc", "average_precision", "tpr_at_fpr_1", "tpr_at_fpr_5"):
        assert score.values[name] is None
        assert score.notes[name] == "needs images of every class, and there are none of fake"


def test_a_class_that_does_not_occur_is_named():
    labels, probabilities = _random(1, 50, 3)
    labels[labels == 2] = 0
    score = metrics.score(labels, probabilities, ("animals", "faces", "vehicles"))
    assert score.values["auc"] is None
    assert "none of vehicles" in score.notes["auc"]
    assert score.values["balanced_accuracy"] == pytest.approx(
        np.mean([(probabilities.argmax(1) == labels)[labels == c].mean() for c in (0, 1)])
    )


def test_no_images_give_no_figures():
    score = metrics.score(np.zeros(0, int), np.zeros((0, 2)))
    assert score.images == 0
    assert set(score.values.values()) == {None}
    assert score.document()["notes"]["accuracy"] == "there are no images"


def test_figures_without_a_gap_have_no_notes():
    score = metrics.score(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert score.document()["notes"] == {}


def test_a_certain_and_wrong_prediction_has_a_finite_log_loss():
    score = metrics.score(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]], np.float32))
    assert 10 < score.values["log_loss"] < 40


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "labels \\[N\\] and probabilities"),
        ([0], [[1.0]], "C >= 2"),
        ([2], [[0.5, 0.5]], "labels must be 0 to 1"),
        ([-1], [[0.5, 0.5]], "labels must be 0 to 1"),
        ([0], [[0.5, 0.6]], "sum to 1"),
        ([0], [[np.nan, 0.5]], "finite"),
        ([0], [[-0.5, 1.5]], "at least 0"),
    ],
)
def test_what_is_no_prediction_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        metrics.score(np.array(labels), np.array(probabilities))


def test_calibration_error_is_the_weighted_gap_between_confidence_and_accuracy():
    # Four images said with 0.9 of which three are right, two said with 0.6 of which both are right.
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    labels = np.array([0, 0, 0, 1, 0, 0])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    bins = metrics.reliability(labels, probabilities)
    assert bins.count.sum() == 6
    assert metrics.calibration_error(bins) == pytest.approx((4 * 0.15 + 2 * 0.4) / 6)


def test_confidence_bins_are_closed_above():
    edges = np.arange(1, metrics.BINS + 1) / metrics.BINS
    assert metrics.confidence_bins(edges).tolist() == list(range(metrics.BINS))
    assert metrics.confidence_bins(np.array([0.0, 1.0])).tolist() == [0, metrics.BINS - 1]


def test_confusion_and_class_scores_equal_scikit_learns_and_name_what_is_undefined():
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    classes = ("a", "b", "c")
    assert metrics.confusion(labels, predicted, 3).tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    scores = metrics.class_scores(labels, predicted, classes)
    report = sk.classification_report(labels, predicted, output_dict=True)
    for name, number in (("a", "0"), ("b", "1")):
        assert scores[name]["precision"] == pytest.approx(report[number]["precision"])
        assert scores[name]["recall"] == pytest.approx(report[number]["recall"])
        assert scores[name]["f1"] == pytest.approx(report[number]["f1-score"])
    assert scores["c"] == {"images": 0, "precision": None, "recall": None, "f1": None}


def test_thinned_curves_keep_their_ends_and_their_area():
    labels, probabilities = _random(3, 20_000, 2)
    drawn = metrics.ranking_curves(labels, probabilities[:, 1], 200)
    false, true = drawn["roc"]["false"], drawn["roc"]["true"]
    assert len(false) <= 202
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert sk.auc(false, true) == pytest.approx(sk.roc_auc_score(labels, probabilities[:, 1]), abs=2e-3)
    assert drawn["precision_recall"]["recall"][-1] == 1


def test_wilson_interval_equals_published_values_and_holds_at_the_ends():
    # Newcombe 1998, table I: 81 of 263.
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    low, high = metrics.wilson(20, 20)
    assert (round(low, 3), high) == (0.839, 1.0)
    assert metrics.wilson(0, 20)[0] == 0.0
