import types

import keras
import numpy as np
import pytest

from deepduel.runs import loss_range
from deepduel.runs.loss_range import LossRange
from deepduel.runs.training_state import State


class Run:
    """Two classes; the losses of steps are given by hand."""

    def __init__(self, *tasks: str):
        self.state = State()
        self.losses = {name: keras.metrics.Mean() for name in tasks or ("category",)}
        self.running = [types.SimpleNamespace(name=name, classes=2) for name in self.losses]
        self.progress = types.SimpleNamespace(steps_done=0)
        metrics = {name: types.SimpleNamespace(loss=loss) for name, loss in self.losses.items()}
        trainer = types.SimpleNamespace(running=self.running, task_metrics=metrics, progress=self.progress)
        self.callback = LossRange(trainer, self.state)
        self.callback.on_epoch_begin(0)

    def step(self, *losses: float) -> dict:
        """One step of four images with a mean loss per task; NaN where the step was skipped."""
        for metric, loss in zip(self.losses.values(), losses, strict=True):
            if not np.isnan(loss):
                metric.update_state(np.full(4, loss, np.float32))
        self.progress.steps_done += 1
        self.callback.on_train_batch_end(self.progress.steps_done - 1)
        return self.state.in_range


def test_the_position_is_that_before_the_latest_step_in_range():
    run = Run()
    assert loss_range.limit(2) == pytest.approx(6.93, abs=0.01)
    assert run.step(0.7) == {"category": (0, 0)}
    assert run.step(6.9) == {"category": (0, 1)}
    assert run.step(7.0) == {"category": (0, 1)}
    assert run.step(float("nan")) == {"category": (0, 1)}
    assert run.step(0.5) == {"category": (0, 4)}


def test_a_loss_that_sums_in_float32_no_longer_show_is_not_in_range():
    run = Run()
    run.step(0.7)
    assert run.step(1e12) == {"category": (0, 0)}
    assert run.step(0.7) == {"category": (0, 0)}


def test_each_task_has_its_own_position_and_one_that_stopped_has_none():
    run = Run("category", "authenticity")
    assert run.step(0.7, 100.0) == {"category": (0, 0)}
    assert run.step(0.7, 0.7) == {"category": (0, 1), "authenticity": (0, 1)}
    del run.running[1]
    assert run.step(100.0, 0.7) == {"category": (0, 1)}
