import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.training.task_losses import Objective, class_weights, losses
from tfrecords_tools.errors import UsageError

pytestmark = pytest.mark.numeric

LABELS = tf.constant([0, 2, 1, -1])
LOGITS = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32)


def mean_loss(objective, weight=(1, 1, 1, 1)):
    targets = objective.targets(LABELS, tf.constant(weight, tf.float32), None, 3)
    total = tf.reduce_sum(losses(targets, LOGITS) * targets.weight)
    return float(total / tf.reduce_sum(targets.weight))


def test_smoothed_labels_are_those_of_keras():
    keras_loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    expected = keras_loss(tf.one_hot(LABELS[:3], 3), LOGITS[:3])
    assert mean_loss(Objective(0.1)) == pytest.approx(float(expected), abs=1e-6)


def test_class_weights_are_factors_of_the_images():
    expected = mean_loss(Objective(), weight=(2, 0.5, 1, 9))
    assert mean_loss(Objective(0, (2.0, 1.0, 0.5))) == pytest.approx(expected, abs=1e-6)


def test_metrics_count_images_whatever_the_class_weights():
    targets = Objective(0.1, (2.0, 1.0, 0.5)).targets(LABELS, tf.ones(4), None, 3)
    assert targets.counts.numpy().tolist() == [1, 1, 1, 0]
    assert targets.weight.numpy().tolist() == [2, 0.5, 1, 0]
    assert targets.label.numpy().tolist()[:3] == [0, 2, 1]


def test_class_weights_are_read():
    labels, names = np.array([0, 0, 0, 1, -1]), ("real", "a=b")
    assert class_weights("none", labels, names) == ()
    assert class_weights("balanced", labels, names) == pytest.approx((2 / 3, 2))
    assert class_weights("a=b=3", labels, names) == (1, 3)
    assert class_weights("real=2,a=b=0.5", labels, names) == (2, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cats=2", "'cats' is not a label"),
        ("real", "'real' is not a label"),
        ("real=0", "the weight of real must be above 0, got '0'"),
        ("real=x", "the weight of real must be above 0, got 'x'"),
    ],
)
def test_bad_class_weights_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        class_weights(text, np.array([0, 1]), ("real", "fake"))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_bad_smoothing_is_refused(share):
    with pytest.raises(UsageError, match="label_smoothing must be from 0 to below 1"):
        Objective(share)
