"""When training ends: by a signal, by the time limit of a session, early, or with the run's last epoch."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras

from deepduel.runs.length import RunLength
from deepduel.runs.training_state import State
from deepduel.training.task import Task
from deepduel.training.team import Team
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.progress import counted

_GIVES_UP = 3  # signals, after which nothing is saved


class Stopped(Exception):
    """Training was stopped on request before the end of the run; the state is saved.

    Attributes:
      code: exit code for a command: 128 + the number of the signal, or 0 when the session's time was over.
    """

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code


class StopRequest:
    """Whether this session is to stop: after SIGTERM or Ctrl-C, or when its time is over.

    Attributes:
      team: the processes that stop together.
      nothing_to_save: whether all that was computed is on disk; then a signal raises `Stopped` at once, while
        TensorFlow traces the first step for example.
    """

    def __init__(self, max_minutes: float = 0, team: Team | None = None):
        """Args:
        max_minutes: length of the session, from now on; 0 for no limit. That of worker 0 counts.
        team: the processes that train together, all of which stop when one is requested to.
        """
        self.nothing_to_save = False
        self.team = team or Team()
        self._deadline = time.monotonic() + 60 * max_minutes if max_minutes and self.team.leads else None
        self._signals: list[signal.Signals] = []

    @property
    def reason(self) -> str | None:
        """The signal's name or "--max_minutes"; None to continue. It is that of this process alone."""
        if self._signals:
            return self._signals[0].name
        is_over = self._deadline is not None and time.monotonic() >= self._deadline
        return "--max_minutes" if is_over else None

    def agreed(self, *, signals_only: bool = False) -> Stopped | None:
        """The end that the first worker with a reason requests; None to continue. All have to call it.

        Args:
          signals_only: whether a time limit has to wait.
        """
        is_asked = bool(self._signals) or not signals_only
        requests = self.team.gather([self.reason, self._code] if is_asked else [None, 0])
        for reason, code in requests:
            if reason:
                return Stopped(reason, code)
        return None

    @property
    def _code(self) -> int:
        return 128 + self._signals[0] if self._signals else 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """A block within which SIGTERM and SIGINT are requests; the third one raises KeyboardInterrupt.

        Each is answered at once, also while TensorFlow computes and Python waits for it. Signals reach the
        main thread only: in another one nothing is changed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        earlier = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            with _each_signal(_Answers()):
                yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))
        if len(self._signals) >= _GIVES_UP:
            raise KeyboardInterrupt
        if self.nothing_to_save:
            raise Stopped(f"{self.reason}: stopped before the first step of this session", self._code)


class _Answers:
    """Says that a signal has arrived."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, number: int) -> None:
        if number not in (signal.SIGTERM, signal.SIGINT):
            return
        self._count += 1
        name = signal.Signals(number).name
        if self._count == 1:
            print(f"{name}: stopping after the current step, with the state saved", flush=True)
        elif self._count < _GIVES_UP:
            print(f"{name}: still stopping; a third signal stops without saving", flush=True)


@contextlib.contextmanager
def _each_signal(answer: Callable[[int], None]) -> Iterator[None]:
    """A block within which `answer` is called with the number of each signal, in a thread of its own.

    Python calls its own handlers only between two instructions of the main thread; this is not delayed.
    """
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    earlier = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        while received := reading.recv(1):
            answer(received[0])

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        writing.close()
        thread.join()
        reading.close()


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
        improved = self._state.last_improvement(task.name, f"val_{task.name}_{task.monitor}")
        if not task.patience or epoch - improved < task.patience:
            return
        best_value, best_epoch = self._state.best[task.name]
        self._state.stopped[task.name] = epoch
        self._trainer.stop(task)
        print(
            f"{task.name}: no improvement of {task.monitor} for {counted(task.patience, 'epoch')}, stopped; "
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
