"""Until where a run is known to be good: the latest step of each task whose loss was in its range.

The loss of a step is that of the weights before it. So when the loss of a step is in range, the weights that
it began with are good, and so is the state that was saved there or earlier. Whether its update was good as
well is seen from the next step.
"""

import math
from typing import Any

import keras
import numpy as np

from deepduel.runs.training_state import State
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer

_FACTOR = 10  # times the loss of guessing, log(classes)


class LossRange(keras.callbacks.Callback):
    """Keeps `state.in_range`. The loss is in range up to ten times that of guessing among the classes."""

    def __init__(self, trainer: MultiTaskTrainer, state: State):
        super().__init__()
        self._trainer = trainer
        self._state = state
        self._sums: dict[str, tuple[float, float]] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._sums = {task.name: self._sum(task) for task in self._trainer.running}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        position = self._epoch, self._trainer.progress.steps_done - 1
        running = [task.name for task in self._trainer.running]
        in_range = {name: value for name, value in self._state.in_range.items() if name in running}
        for task in self._trainer.running:
            earlier, self._sums[task.name] = self._sums[task.name], self._sum(task)
            if _within(earlier, self._sums[task.name], limit(task.classes)):
                in_range[task.name] = position
        self._state.in_range = in_range

    def _sum(self, task: Task) -> tuple[float, float]:
        """(sum of the losses of the epoch's images so far, sum of their weights)."""
        loss = self._trainer.task_metrics[task.name].loss
        return float(loss.total.numpy()), float(loss.count.numpy())


def limit(classes: int) -> float:
    """The highest loss in range."""
    return _FACTOR * math.log(max(classes, 2))


def _within(earlier: tuple[float, float], now: tuple[float, float], highest: float) -> bool:
    """Whether the mean loss of the images between two sums is known and at most `highest`."""
    weight = now[1] - earlier[1]
    if weight <= 0:  # the step was skipped, or has no labels
        return False
    resolved = float(np.spacing(np.float32(now[0]))) < highest * weight  # the sums are float32
    return resolved and now[0] - earlier[0] <= highest * weight
