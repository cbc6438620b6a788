import math
import types

import pytest
import tensorflow as tf

from deepduel.runs.plateaus import Plateaus, reductions
from deepduel.runs.training_state import State
from deepduel.training.schedules import Plateau, Schedule


@pytest.mark.parametrize(
    ("values", "count"),
    [([], 0), ([0.5], 0), ([0.5, 0.5], 0), ([0.5, 0.4, 0.5], 1), ([0.5, 0.4, 0.6, 0.6], 0),
     ([0.5, 0.4, 0.3, 0.2, 0.1], 2), ([math.nan, 0.1, math.nan, 0.05], 1)],
)  # fmt: skip
def test_the_rate_falls_after_two_epochs_without_improvement_and_again(values, count):
    assert reductions(values, monitor="accuracy", patience=2) == count
    assert reductions([-value for value in values], monitor="loss", patience=2) == count


def test_the_factor_follows_from_the_history_also_when_resumed(capsys):
    def rate_after(trainer) -> float:
        return float(Schedule(1.0, shape=trainer.running[0].plateau)(7))

    def session(state):
        plateau = Plateau(2, tf.Variable(1.0))
        task = types.SimpleNamespace(name="category", monitor="accuracy", plateau=plateau)
        other = types.SimpleNamespace(name="authenticity", monitor="accuracy", plateau=None)
        trainer = types.SimpleNamespace(running=[task, other])
        return trainer, Plateaus(trainer, state)

    state = State()
    trainer, callback = session(state)
    rates = []
    for epoch, value in enumerate([0.5, 0.4, 0.3, 0.2, 0.6]):
        state.history.append({"val_category_accuracy": value, "seconds": 1.0})
        callback.on_epoch_end(epoch)
        rates.append(rate_after(trainer))
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.2])
    assert capsys.readouterr().out.count("category: no improvement") == 1
    resumed, _ = session(state)
    assert rate_after(resumed) == pytest.approx(0.2)
    assert capsys.readouterr().out == ""
