import numpy as np
import pytest
import sklearn.metrics

from deepduel.training.running_auc import RunningAUC

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_scikit_learns_whatever_the_batches(classes):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 500).astype(np.int32)
    logits = random.normal(size=(500, classes)).astype(np.float32)
    logits[np.arange(500), labels] += 1
    metric = RunningAUC(classes, "auc")
    for part in np.array_split(np.arange(500), 7):
        metric.update_state(labels[part], logits[part], np.ones(len(part), np.float32))
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = sklearn.metrics.roc_auc_score(
        labels, odds[:, 1] if classes == 2 else odds, multi_class="ovr", average="macro"
    )
    assert float(metric.result()) == pytest.approx(expected, abs=2e-3)
    metric.reset_state()
    assert np.isnan(float(metric.result()))


def test_weight_zero_and_what_is_not_finite_do_not_count():
    metric = RunningAUC(2, "auc")
    logits = np.array([[1, 0], [0, 1], [9, 0], [np.nan, 0], [1e5, -1e5]], np.float32)
    metric.update_state(np.array([0, 1, 1, 1, 0]), logits, np.array([1, 1, 0, 1, 1], np.float32))
    assert float(metric.result()) == 1


def test_one_class_alone_has_none():
    metric = RunningAUC(3, "auc")
    metric.update_state(np.zeros(4, np.int32), np.zeros((4, 3), np.float32), np.ones(4, np.float32))
    assert np.isnan(float(metric.result()))
