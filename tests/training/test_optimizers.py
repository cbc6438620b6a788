import keras
import numpy as np
import pytest

from deepduel.training import optimizers
from deepduel.training.optimizer_options import OPTIMIZERS, OptimizerOptions
from tfrecords_tools.errors import UsageError

pytestmark = pytest.mark.numeric


def build(options, *, epochs=2, scales_loss=False):
    return optimizers.build(options, steps_per_epoch=10, epochs=epochs, scales_loss=scales_loss)


def rates(schedule: str, steps: int, *, epochs=2, warmup="0") -> list[float]:
    """The rates of the first updates, ten an epoch, of a peak of 1."""
    optimizer = build(OptimizerOptions("sgd", 1.0, schedule=schedule, warmup=warmup), epochs=epochs)
    return [float(optimizer._learning_rate(step)) for step in range(steps)]


def test_a_cosine_with_warm_up_goes_up_and_down():
    values = rates("cosine", 22, warmup="4steps")
    assert values[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert values[12] == pytest.approx(0.5)
    assert values[20:] == pytest.approx([0, 0], abs=1e-6)


def test_steps_divide_by_ten_after_each_third_of_the_run_or_after_so_many_epochs():
    assert rates("step", 30, epochs=3)[::5] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    for epochs in (5, None):  # of a run whose length is a time, too
        assert rates("step:2", 41, epochs=epochs)[::20] == pytest.approx([1, 0.1, 0.01])
    assert rates("step:2", 41, warmup="2steps")[:3] == pytest.approx([0.5, 1, 1])


def test_one_cycle_is_that_of_pytorch():
    """Golden values of torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=20), updates 0, 2, …, 18."""
    values = rates("onecycle", 21)
    expected = [0.04, 0.371672, 0.908328, 0.987464, 0.890916, 0.716943, 0.500002, 0.283061, 0.109088, 0.01254]
    assert values[:20:2] == pytest.approx(expected, abs=2e-6)
    assert values[5] == 1
    assert values[19] == values[20] == pytest.approx(4e-6, rel=1e-3)


def test_schedules_that_span_the_run_need_its_number_of_epochs():
    for schedule in ("onecycle", "step"):
        with pytest.raises(UsageError, match=f"schedule={schedule} needs a number of epochs, not a time"):
            build(OptimizerOptions(schedule=schedule), epochs=None)
    with pytest.raises(UsageError, match="onecycle warms up by itself"):
        OptimizerOptions(schedule="onecycle", warmup="5steps")
    for schedule in ("linear", "step:0", "cosine:3", "plateau:x"):
        with pytest.raises(UsageError, match="schedule must be constant, cosine, onecycle, step"):
            OptimizerOptions(schedule=schedule)


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
