import signal
import types

import keras
import numpy as np
import pytest

from deepduel.runs import training_state
from deepduel.runs.checkpointing import Checkpoint
from deepduel.runs.options import SaveInterval
from deepduel.runs.stopping import Stopped, StopRequest
from deepduel.runs.training_state import State
from deepduel.training.progress import Progress


class Session:
    """A checkpoint of a run with three steps per epoch, whose steps are counted by hand."""

    def __init__(self, folder, *, stop=None, **interval):
        self.folder = folder
        self.weight = keras.Variable(np.zeros(3, "float32"))
        self.trainer = types.SimpleNamespace(
            progress=Progress(), stop_training=False, state_variables=lambda: [self.weight]
        )
        self.stop = stop or StopRequest()
        self.checkpoint = Checkpoint(
            self.trainer,
            folder,
            State(),
            interval=SaveInterval(**{"seconds": None} | interval),
            steps_per_epoch=3,
            stop=self.stop,
        )
        self.checkpoint.on_epoch_begin(0)

    def step(self):
        self.weight.assign(self.weight + 1)
        self.trainer.progress.steps_done += 1
        self.checkpoint.on_train_batch_end(self.trainer.progress.steps_done - 1)

    def positions(self) -> list[str]:
        self.checkpoint.wait()
        return sorted(path.name for path in self.folder.glob("state-*"))


def signalled(stop, number):
    """Lets the request receive a signal."""
    with stop.listening():
        signal.raise_signal(number)


def test_a_state_is_saved_by_steps_but_not_before_validation(tmp_path):
    session = Session(tmp_path, steps=1)
    for _ in range(3):
        session.step()
    assert session.positions() == ["state-000000-000000001.npz", "state-000000-000000002.npz"]
    session.checkpoint.on_epoch_end(0)
    assert session.positions()[-1] == "state-000001-000000000.npz"


def test_a_request_stops_after_the_step_with_its_state(tmp_path):
    session = Session(tmp_path)
    session.step()
    signalled(session.stop, signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM: stopped and saved at epoch 1, step 2"):
        session.step()
    weight = keras.Variable(np.zeros(3, "float32"))
    state, _ = training_state.load(tmp_path, [weight])
    assert (state.epoch, state.step, weight.numpy().tolist()) == (0, 2, [2, 2, 2])


def test_a_request_at_the_end_of_an_epoch_stops_unless_the_run_is_over(tmp_path):
    for over in (False, True):
        session = Session(tmp_path / str(over))
        signalled(session.stop, signal.SIGINT)
        session.trainer.stop_training = over
        if over:
            session.checkpoint.on_epoch_end(0)
        else:
            with pytest.raises(Stopped, match="saved at epoch 2, step 0"):
                session.checkpoint.on_epoch_end(0)
        assert session.positions() == ["state-000001-000000000.npz"]


def test_a_signal_in_validation_stops_with_the_state_before_the_last_step(tmp_path):
    session = Session(tmp_path)
    for _ in range(3):
        session.step()
    session.weight.assign([-1.0] * 3)  # in validation the weights may be averages
    session.checkpoint.on_test_begin()
    session.checkpoint.on_test_batch_end(0)
    signalled(session.stop, signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM: stopped and saved at epoch 1, step 2") as error:
        session.checkpoint.on_test_batch_end(1)
    assert error.value.code == 143
    assert session.positions() == ["state-000000-000000002.npz"]
    training_state.load(tmp_path, [session.weight])
    assert session.weight.numpy().tolist() == [2, 2, 2]


def test_a_time_limit_waits_for_the_end_of_the_validation(tmp_path):
    session = Session(tmp_path, stop=StopRequest(1e-9))
    session.trainer.progress.steps_done = 3
    session.checkpoint.on_test_batch_end(0)
    with pytest.raises(Stopped, match="--max_minutes: stopped and saved at epoch 2, step 0") as error:
        session.checkpoint.on_epoch_end(0)
    assert error.value.code == 0
