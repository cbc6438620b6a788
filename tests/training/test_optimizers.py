import keras
import numpy as np
import pytest

from deepduel.training import optimizers
from deepduel.training.optimizer_options import OPTIMIZERS, OptimizerOptions
from deepduel.training.optimizers import Schedule
from tfrecords_tools.errors import UsageError

pytestmark = pytest.mark.numeric


def build(options, *, epochs=2, scales_loss=False):
    return optimizers.build(options, steps_per_epoch=10, epochs=epochs, scales_loss=scales_loss)


def test_a_cosine_with_warm_up_goes_up_and_down():
    schedule = Schedule(2.0, warmup=4, steps=12)
    rates = [float(schedule(step)) for step in range(14)]
    assert rates[:5] == pytest.approx([0.5, 1, 1.5, 2, 2])
    assert rates[8] == pytest.approx(1)
    assert rates[12:] == pytest.approx([0, 0], abs=1e-6)


def test_a_warm_up_may_be_a_share_of_an_epoch_and_end_in_a_constant():
    optimizer = build(OptimizerOptions(learning_rate=1.0, warmup="0.5epochs"))
    weight = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([weight])
    rates = []
    for _ in range(7):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([np.ones(1, "float32")], [weight])
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])


def test_a_warm_up_longer_than_a_cosine_is_refused():
    with pytest.raises(UsageError, match="warmup of 20 steps leaves nothing of the run's 20"):
        build(OptimizerOptions(schedule="cosine", warmup="2epochs"))
    build(OptimizerOptions(warmup="2epochs"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_decays_kernels_alone(name):
    kernel, bias = (keras.Variable(np.ones(1, "float32"), name=part) for part in ("kernel", "bias"))
    optimizer = build(OptimizerOptions(name, learning_rate=0.5, weight_decay=0.1))
    optimizer.build([kernel, bias])
    optimizer.apply([np.zeros(1, "float32")] * 2, [kernel, bias])
    assert float(kernel[0]) == pytest.approx(0.95)
    assert float(bias[0]) == 1


def test_adamw_decays_by_itself_and_adam_does_not():
    assert build(OptimizerOptions("adamw")).weight_decay == 0.004
    assert build(OptimizerOptions("adam")).weight_decay is None
    assert build(OptimizerOptions("adamw", weight_decay=0.0)).weight_decay == 0


def test_the_loss_is_scaled_around_the_optimizer():
    optimizer = build(OptimizerOptions("sgd"), scales_loss=True)
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(optimizer.inner_optimizer, keras.optimizers.SGD)
