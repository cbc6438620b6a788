import keras
import numpy as np
import pytest

from deepduel.training.weight_averages import Averages

pytestmark = pytest.mark.numeric


def test_averages_follow_the_weights_and_stand_in_for_them():
    weight = keras.Variable(np.zeros(2, "float32"))
    averages = Averages(0.5, [weight])
    expected = 0.0
    for update in range(1, 30):
        weight.assign(np.full(2, update, "float32"))
        averages.update(update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    assert averages.variables[0].numpy() == pytest.approx([expected] * 2)
    with averages.in_place():
        assert weight.numpy() == pytest.approx([expected] * 2)
    assert (weight.numpy() == 29).all()


def test_without_a_decay_there_is_nothing():
    weight = keras.Variable(np.ones(2, "float32"))
    averages = Averages(0.0, [weight])
    averages.update(1)
    with averages.in_place():
        assert (weight.numpy() == 1).all()
    assert averages.variables == []
