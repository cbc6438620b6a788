import types

import keras
import numpy as np
import pytest

from deepduel.runs import training_state
from deepduel.runs.checkpointing import Checkpoint
from deepduel.runs.options import SaveInterval
from deepduel.runs.stopping import Stopped
from deepduel.runs.training_state import State
from deepduel.training.progress import Progress


class Session:
    """A checkpoint of a run with three steps per epoch, whose steps are counted by hand."""

    def __init__(self, folder, **interval):
        self.folder = folder
        self.weight = keras.Variable(np.zeros(3, "float32"))
        self.trainer = types.SimpleNamespace(
            progress=Progress(), stop_training=False, state_variables=lambda: [self.weight]
        )
        self.stop = types.SimpleNamespace(reason=None)
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
    session.stop.reason = "SIGTERM"
    with pytest.raises(Stopped, match="SIGTERM: stopped and saved at epoch 1, step 2"):
        session.step()
    weight = keras.Variable(np.zeros(3, "float32"))
    state, _ = training_state.load(tmp_path, [weight])
    assert (state.epoch, state.step, weight.numpy().tolist()) == (0, 2, [2, 2, 2])


def test_a_request_at_the_end_of_an_epoch_stops_unless_the_run_is_over(tmp_path):
    for over in (False, True):
        session = Session(tmp_path / str(over))
        session.stop.reason, session.trainer.stop_training = "SIGINT", over
        if over:
            session.checkpoint.on_epoch_end(0)
        else:
            with pytest.raises(Stopped, match="saved at epoch 2, step 0"):
                session.checkpoint.on_epoch_end(0)
        assert session.positions() == ["state-000001-000000000.npz"]
