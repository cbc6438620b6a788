"""When training ends: by a signal, by the time limit of a session, early, or with the run's last epoch."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras

from deepduel.runs.length import RunLength
from deepduel.runs.training_state import State
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer


class Stopped(Exception):
    """Training was stopped on request before the end of the run; the state is saved."""


class StopRequest:
    """Whether this session is to stop: after SIGTERM or Ctrl-C, or when its time is over."""

    def __init__(self, max_minutes: float = 0):
        """Args:
        max_minutes: length of the session, from now on; 0 for no limit.
        """
        self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else None
        self._signal: str | None = None

    @property
    def reason(self) -> str | None:
        """The signal's name or "--max_minutes"; None to continue."""
        if self._signal is None and self._deadline is not None and time.monotonic() >= self._deadline:
            return "--max_minutes"
        return self._signal

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """A block within which SIGTERM and SIGINT are requests; a second one raises KeyboardInterrupt.

        Signals reach the main thread only: in another one nothing is changed.
        """

        def request(number: int, frame: FrameType | None) -> None:
            if self._signal is not None:
                raise KeyboardInterrupt
            self._signal = signal.Signals(number).name

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)


class EarlyStopping(keras.callbacks.Callback):
    """Stops tasks whose monitored metric does not improve, and keeps `state.stopped`."""

    def __init__(self, trainer: MultiTaskTrainer, state: State):
        super().__init__()
        self._trainer = trainer
        self._state = state
        for task in trainer.tasks:
            if task.name in state.stopped:
                trainer.stop(task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for task in list(self._trainer.running):
            self._check(task, epoch + 1)
        if not self._trainer.running:
            self._trainer.stop_training = True

    def _check(self, task: Task, epoch: int) -> None:
        best_value, best_epoch = self._state.best[task.name]
        if not task.patience or epoch - best_epoch < task.patience:
            return
        self._state.stopped[task.name] = epoch
        self._trainer.stop(task)
        print(
            f"{task.name}: no improvement of {task.monitor} for {task.patience} epochs, stopped; "
            f"the best is epoch {best_epoch} ({best_value:.4g})",
            flush=True,
        )


class PlannedEnd(keras.callbacks.Callback):
    """Ends training with the run's last epoch; a run whose length is a time is planned again after each one.

    Attributes:
      epochs: how many are planned in total; None before the first one of a run whose length is a time.
    """

    def __init__(self, trainer: MultiTaskTrainer, state: State, length: RunLength, *, steps_per_epoch: int):
        super().__init__()
        self._trainer = trainer
        self._state = state
        self._length = length
        self._steps_per_epoch = steps_per_epoch
        self.epochs = self._plan()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epochs = self._plan()
        if self.epochs is not None and self.epochs <= epoch + 1:
            self._trainer.stop_training = True

    def _plan(self) -> int | None:
        epochs = self._length.planned(self._state.epoch_seconds)
        if self._length.epochs is None and epochs and self._trainer.planned_steps is not None:
            self._trainer.planned_steps.assign(epochs * self._steps_per_epoch)
        return epochs
