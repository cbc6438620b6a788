import contextlib
import math
import types

import keras
import numpy as np
import pytest

from deepduel.runs.epoch_files import EpochFiles
from deepduel.runs.training_state import State
from deepduel.training.team import Team
from tests.conftest import history_rows


@pytest.fixture
def trainer():
    """What EpochFiles uses of a trainer, with two tasks of one weight each."""
    tasks = []
    for name, monitor in (("category", "accuracy"), ("authenticity", "loss")):
        inputs = keras.Input((1,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        task_model = types.SimpleNamespace(saved_model=model)
        tasks.append(types.SimpleNamespace(name=name, monitor=monitor, model=task_model))
    averaged = contextlib.nullcontext
    return types.SimpleNamespace(tasks=tasks, running=list(tasks), averaged=averaged, team=Team())


def run_epochs(trainer, folder, values, epochs=None, losses=None):
    state = State()
    files = EpochFiles(trainer, folder, state, epochs=epochs)
    for epoch, value in enumerate(values):
        for task in trainer.tasks:
            task.model.saved_model.layers[-1].set_weights([np.full((1, 1), epoch), np.zeros(1)])
        logs = {"val_category_accuracy": value, "val_authenticity_loss": value}
        files.on_epoch_end(epoch, logs | {"val_category_loss": losses[epoch] if losses else 1.0})
    return state


def weight(path) -> float:
    return float(keras.models.load_model(path).layers[-1].get_weights()[0][0, 0])


def test_best_is_the_highest_accuracy_and_the_lowest_loss(trainer, tmp_path):
    state = run_epochs(trainer, tmp_path, [0.5, 0.75, 0.25])
    assert state.best == {"category": (0.75, 2), "authenticity": (0.25, 3)}
    assert weight(tmp_path / "category" / "best.keras") == 1
    assert weight(tmp_path / "authenticity" / "best.keras") == 2
    assert [row["val_category_accuracy"] for row in history_rows(tmp_path)] == ["0.5", "0.75", "0.25"]


def test_nan_is_never_the_best_once_there_is_a_number(trainer, tmp_path):
    state = run_epochs(trainer, tmp_path, [math.nan, 0.5, math.nan])
    assert state.best == {"category": (0.5, 2), "authenticity": (0.5, 2)}


def test_a_tie_keeps_the_earlier_epoch(trainer, tmp_path):
    assert run_epochs(trainer, tmp_path, [0.5, 0.5]).best["category"] == (0.5, 1)


def test_of_equal_accuracies_the_lowest_loss_is_the_best_and_no_improvement(trainer, tmp_path):
    losses = [1.0, 0.2, math.nan, 0.1, 0.3, 0.05]
    state = run_epochs(trainer, tmp_path, [0.5, 0.75, 0.75, 0.75, 0.75, 0.5], losses=losses)
    assert state.best["category"] == (0.75, 4)
    assert weight(tmp_path / "category" / "best.keras") == 3
    assert state.last_improvement("category", "val_category_accuracy") == 2


def test_no_partial_file_stays_and_names_have_the_digits_of_the_last_epoch(trainer, tmp_path):
    run_epochs(trainer, tmp_path, [0.5], epochs=120)
    assert sorted(path.name for path in (tmp_path / "category").iterdir()) == [
        "best.keras",
        "epoch-001.keras",
    ]
