"""Robustness: the damage is what it says, and the undamaged figures are evaluation's own."""

import io

import numpy as np
import pytest
from PIL import Image

from deepduel.evaluation import metrics, predictions, robustness
from deepduel.prediction.predictor import Predictor
from deepduel.reading import pipeline
from tests.helpers.fake_runs import write_run


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
        (64, 48), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(small, float) + rng.normal(0, 8, (48, 64, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", sorted(robustness.LEVELS))
def test_more_damage_changes_more_and_keeps_the_shape(kind, picture):
    changes = []
    for level in robustness.LEVELS[kind]:
        damaged = robustness.damage(picture, kind, level)
        assert damaged.shape == picture.shape and damaged.dtype == np.uint8
        changes.append(np.abs(damaged.astype(float) - picture).mean())
    assert changes[0] > 0
    assert changes == sorted(changes)


def test_jpeg_damage_is_that_of_pillow(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=50, subsampling=2)
    expected, ours = (
        np.asarray(Image.open(stream), float),
        robustness.damage(picture, "jpeg", 50).astype(float),
    )
    # The same tables; the two libraries round their transforms differently before quantisation.
    assert np.abs(ours - expected).mean() < 2
    amount = [np.abs(damaged - picture).mean() for damaged in (ours, expected)]
    assert amount[0] == pytest.approx(amount[1], rel=0.03)


def test_crop_enlarges_the_middle(picture):
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[10:30, 10:30] = 200
    assert (robustness.damage(picture, "crop", 0.5) == 200).all()


def test_an_unknown_damage_is_refused(picture):
    with pytest.raises(ValueError, match="kind must be one of jpeg, blur"):
        robustness.damage(picture, "rot", 1)


@pytest.mark.slow
def test_undamaged_figures_are_those_of_the_evaluation(tmp_path, toy_shards):
    predictor = Predictor(write_run(tmp_path / "run", toy_shards, axes=["authenticity"]))
    split, labels = predictions.open_split(toy_shards, "validation", predictor)
    labels["authenticity"][3] = -1
    curves = robustness.curves(split, labels, predictor, images=0, batch_size=20)["authenticity"]
    predicted = predictions.predict(split, labels, predictor, pipeline.ReadOptions(16, predictor.card.size))
    known = labels["authenticity"] >= 0
    plain = metrics.score(
        labels["authenticity"][known], predicted.probabilities["authenticity"][known]
    ).values
    assert curves["images"] == 53
    for kind, levels in robustness.LEVELS.items():
        rows = curves["kinds"][kind]
        assert [row["level"] for row in rows] == [None, *levels]
        assert {name: rows[0][name] for name in plain} == pytest.approx(plain, abs=1e-6)
    aucs = {row["auc"] for rows in curves["kinds"].values() for row in rows}
    assert len(aucs) > 5  # damage reaches the model
