"""Calibration: the fit recovers the temperature of the data, on images that it did not see."""

import json

import numpy as np
import pytest

from deepduel.evaluation import calibration
from tfrecords_tools.errors import DataError

pytestmark = pytest.mark.numeric


def _overconfident(count, temperature, seed=0, classes=2):
    """Labels drawn from softmax(z), and the probabilities softmax(temperature * z) that a model says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, classes))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (true.cumsum(1) < rng.random(count)[:, None]).sum(1)
    probabilities = np.exp(temperature * logits)
    return labels, probabilities / probabilities.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_that_was_put_in_is_found(temperature, classes):
    labels, probabilities = _overconfident(20_000, temperature, classes=classes)
    assert calibration.fit(labels, probabilities).temperature == pytest.approx(temperature, rel=0.06)


def test_calibration_helps_on_the_images_it_was_not_fitted_on():
    labels, probabilities = _overconfident(5000, 3.0)
    tuning = calibration.tuning_slice([b"%d" % number for number in range(5000)])
    document = calibration.document(labels, probabilities, tuning)
    assert document["tuned_on"] + document["judged_on"] == 5000
    assert document["after"]["ece"] < 0.3 * document["before"]["ece"]
    assert document["after"]["log_loss"] < document["before"]["log_loss"]


def test_the_threshold_makes_up_for_a_biased_model():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 4000)
    score = 1 / (1 + np.exp(-(rng.normal(0, 1, 4000) + 2 * labels - 3)))  # says fake far too seldom
    probabilities = np.stack([1 - score, score], 1)
    tuning = np.arange(4000) % 5 == 0
    document = calibration.document(labels, probabilities, tuning)
    assert document["threshold"] < 0.4
    assert document["after"]["balanced_accuracy"] > document["before"]["balanced_accuracy"] + 0.1
    assert document["after"]["balanced_accuracy"] == pytest.approx(0.84, abs=0.03)  # 1 - Phi(-1)


def test_the_threshold_is_the_best_of_all_and_ties_go_towards_one_half():
    scores, labels = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert calibration._threshold(labels, scores) == pytest.approx(0.5)
    assert calibration._threshold(np.array([0, 1, 1, 1]), scores) == pytest.approx(0.15)
    one = calibration.Calibration(1.0, 0.15)
    assert one.decide(np.array([[0.85, 0.15], [0.8, 0.2]])).tolist() == [0, 1]


def test_temperature_one_changes_nothing_and_more_classes_have_no_threshold():
    _, probabilities = _overconfident(50, 1.0, classes=3)
    np.testing.assert_allclose(calibration.tempered(probabilities, 1.0), probabilities, atol=1e-12)
    one = calibration.fit(probabilities.argmax(1), probabilities)
    assert one.threshold is None
    assert (one.decide(probabilities) == probabilities.argmax(1)).all()


def test_a_certain_model_stays_finite():
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0]] * 30)
    document = calibration.document(np.array([0, 1] * 30), probabilities, np.arange(60) % 3 == 0)
    assert np.isfinite(document["after"]["log_loss"])


def test_the_slice_is_a_function_of_the_key_and_about_a_fifth():
    keys = [b"images/%d.jpg" % number for number in range(10_000)]
    chosen = calibration.tuning_slice(keys)
    assert 0.18 < chosen.mean() < 0.22
    assert (calibration.tuning_slice(keys[::-1])[::-1] == chosen).all()
    assert calibration.tuning_slice(keys[:12]).tolist() == calibration.tuning_slice(keys)[:12].tolist()


def test_too_few_images_give_a_reason():
    labels, probabilities = _overconfident(30, 1.0)
    assert "needs 20 images" in calibration.document(labels, probabilities, np.arange(30) % 5 == 0)["note"]
    labels, probabilities = _overconfident(300, 1.0)
    assert (
        "every class"
        in calibration.document(np.zeros(300, int), probabilities, np.arange(300) % 5 == 0)["note"]
    )


def test_a_calibration_of_other_models_is_refused(tmp_path):
    folder = tmp_path / "evaluation" / "validation"
    folder.mkdir(parents=True)
    document = {
        "about": {"model_sha256": {"a": "x"}},
        "tasks": {"a": {"calibration": {"temperature": 2.0, "threshold": 0.4}}},
    }
    (folder / "metrics.json").write_text(json.dumps(document))
    assert calibration.load(tmp_path, "validation", {"a": "x"}) == {"a": calibration.Calibration(2.0, 0.4)}
    with pytest.raises(DataError, match="belongs to another a model"):
        calibration.load(tmp_path, "validation", {"a": "y"})
    with pytest.raises(DataError, match="there is no .*deepduel.evaluate"):
        calibration.load(tmp_path, "test", {"a": "x"})
    (folder / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="unreadable"):
        calibration.load(tmp_path, "validation", {"a": "x"})
