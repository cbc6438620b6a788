"""--schedule=plateau: the learning rate falls when a task no longer improves."""

from collections.abc import Sequence
from typing import Any

import keras

from deepduel.runs.options import better
from deepduel.runs.training_state import State
from deepduel.training.schedules import PLATEAU_FACTOR
from deepduel.training.trainer import MultiTaskTrainer


class Plateaus(keras.callbacks.Callback):
    """Sets the factor of each task's plateau schedule from the run's history, so that it needs no state."""

    def __init__(self, trainer: MultiTaskTrainer, state: State):
        super().__init__()
        self._trainer = trainer
        self._state = state
        self._set_factors()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name in self._set_factors():
            line = f"{name}: no improvement, the learning rate is now {PLATEAU_FACTOR:g} times as high"
            print(line, flush=True)

    def _set_factors(self) -> list[str]:
        """Returns the tasks whose factor has changed."""
        changed = []
        for task in self._trainer.running:
            if task.plateau is None:
                continue
            column = f"val_{task.name}_{task.monitor}"
            values = [row[column] for row in self._state.history if column in row]
            count = reductions(values, monitor=task.monitor, patience=task.plateau.patience)
            factor = PLATEAU_FACTOR**count
            if abs(factor / float(task.plateau.factor.numpy()) - 1) > 0.01:
                changed.append(task.name)
            task.plateau.factor.assign(factor)
        return changed


def reductions(values: Sequence[float], *, monitor: str, patience: int) -> int:
    """How often the rate has fallen after epochs with these values of the monitored metric.

    It falls after `patience` epochs in a row that are not better than the best one, and again after as many.
    """
    count = since = 0
    best: float | None = None
    for value in values:
        if best is None or better(monitor, value, best):
            best, since = value, 0
            continue
        since += 1
        if since == patience:
            count, since = count + 1, 0
    return count
