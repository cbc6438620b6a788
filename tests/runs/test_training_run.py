"""What a session makes of the state of a run."""

import numpy as np
import pytest

from deepduel.augment import PRESETS
from deepduel.decoding.split import Split
from deepduel.runs import training_run
from deepduel.runs.options import TaskOptions
from deepduel.runs.training_state import Snapshot, State, StateWriter
from deepduel.training.optimizer_options import OptimizerOptions
from tests.helpers import tasks


@pytest.fixture(scope="module")
def trainer(toy_shards):
    return tasks.compiled(tasks.make("category", Split(toy_shards, "train"), rate=0.01))


def restored(trainer, workdir, rate: float) -> float:
    """The optimizer's learning rate in a session that has this one as its flag."""
    optimizer = trainer.tasks[0].optimizer
    optimizer.learning_rate = 0.5  # whatever a new optimizer has
    options = TaskOptions("category", tasks.FROZEN, PRESETS["none"], OptimizerOptions(learning_rate=rate))
    state = training_run._restore(trainer, workdir, [options])
    assert state.learning_rates == {"category": rate}
    return float(optimizer.learning_rate)


@pytest.mark.parametrize("earlier", [{}, {"category": 0.01}], ids=["earlier version", "now"])
def test_another_learning_rate_counts_until_a_state_with_it_is_saved(trainer, tmp_path, earlier):
    """A session may be killed before it saves its first state."""
    trainer.tasks[0].optimizer.learning_rate = 0.01
    writer = StateWriter(tmp_path / "resume")
    writer.save(Snapshot.of(State(learning_rates=earlier), trainer.state_variables()))
    writer.wait()
    for _ in range(2):
        assert restored(trainer, tmp_path, 1e-4) == np.float32(1e-4)


def test_a_rate_that_was_lowered_during_the_run_stays_lowered(trainer, tmp_path):
    trainer.tasks[0].optimizer.learning_rate = 0.005
    writer = StateWriter(tmp_path / "resume")
    writer.save(Snapshot.of(State(learning_rates={"category": 0.01}), trainer.state_variables()))
    writer.wait()
    assert restored(trainer, tmp_path, 0.01) == np.float32(0.005)
