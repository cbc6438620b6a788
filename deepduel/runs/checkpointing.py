"""When a run's state is saved: every so often within an epoch, after each epoch, and when it stops."""

import pathlib
import time
from typing import Any

import keras

from deepduel.runs import training_state
from deepduel.runs.options import SaveInterval
from deepduel.runs.stopping import Stopped, StopRequest
from deepduel.runs.training_state import Position, Snapshot, State, StateWriter
from deepduel.training.trainer import MultiTaskTrainer


class Checkpoint(keras.callbacks.Callback):
    """Saves the state, and raises `Stopped` once it is saved when the session is requested to stop.

    It is the last of a session's callbacks, so that a state on disk implies that the others have done their
    work. It keeps `state.epoch` and `state.step`. In a team worker 0 saves, and all stop after the same step.
    """

    def __init__(
        self,
        trainer: MultiTaskTrainer,
        folder: pathlib.Path,
        state: State,
        *,
        interval: SaveInterval,
        steps_per_epoch: int,
        stop: StopRequest,
    ):
        super().__init__()
        self._trainer = trainer
        self._team = stop.team
        self._state = state
        self._interval = interval
        self._steps_per_epoch = steps_per_epoch
        self._stop = stop
        self._folder = folder
        self._writer = StateWriter(folder)
        self._saved = time.monotonic()
        self._before_last_step: Snapshot | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._state.epoch = epoch
        self._keep_before_last_step()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._stop.nothing_to_save = False
        steps = self._trainer.progress.steps_done
        if steps >= self._steps_per_epoch:
            return  # the state is saved at the end of the epoch, after validation
        self._keep_before_last_step()
        stopped = self._stop.agreed()
        if stopped or self._interval.due(steps, time.monotonic() - self._saved):
            self.save()
        self._stop_for(stopped)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._stop_in_validation()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._stop_in_validation()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._before_last_step = None
        self._state.epoch, self._trainer.progress.steps_done = epoch + 1, 0
        self.save()
        if not self._trainer.stop_training:
            self._stop_for(self._stop.agreed())

    def save(self) -> None:
        """Saves the present state; the file is written in the background."""
        self._state.step = self._trainer.progress.steps_done
        if self._team.leads:
            self.wait()  # so that there is at most one copy in memory
            self._write(self._snapshot())

    def wait(self) -> None:
        """Returns once the last state is on disk."""
        self._writer.wait()

    def rewind(self, position: Position) -> Position | None:
        """Removes the states after a position. Returns that of the newest one that is left."""
        self.wait()
        kept = self._team.decided(lambda: training_state.remove_after(self._folder, position))
        return kept and (kept[0], kept[1])

    def stop_if_requested(self) -> None:
        """Saves the state and raises `Stopped` when the session is to stop. To be called between steps."""
        stopped = self._stop.agreed()
        if stopped:
            self.save()
        self._stop_for(stopped)

    def _stop_for(self, stopped: Stopped | None) -> None:
        """Raises `Stopped` if that is agreed, once the state that was saved last is on disk."""
        if stopped:
            self.wait()
            self._team.gather(None)  # until worker 0 has waited
            self._team.expect_end()
            position = f"epoch {self._state.epoch + 1}, step {self._state.step}"
            raise Stopped(f"{stopped}: stopped and saved at {position}", stopped.code)

    def _stop_in_validation(self) -> None:
        """After a signal, stops with the state before the epoch's last step, which the next session repeats.

        A time limit waits for the end of the epoch: a session shorter than a validation would never end it.
        """
        stopped = self._stop.agreed(signals_only=True)
        if stopped and (self._before_last_step or not self._team.leads):
            self._state.step = self._steps_per_epoch - 1
            if self._before_last_step:
                self._write(self._before_last_step)
            self._stop_for(stopped)

    def _keep_before_last_step(self) -> None:
        """Copies the state before an epoch's last step: in validation the metrics and weights are others."""
        if self._team.leads and self._trainer.progress.steps_done == self._steps_per_epoch - 1:
            self._before_last_step = self._snapshot()

    def _snapshot(self) -> Snapshot:
        self._state.step = self._trainer.progress.steps_done
        return Snapshot.of(self._state, self._trainer.state_variables())

    def _write(self, snapshot: Snapshot) -> None:
        self._writer.save(snapshot)
        self._saved = time.monotonic()
