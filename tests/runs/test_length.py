import types

import pytest
import tensorflow as tf

from deepduel.runs.checkpointing import Keeper
from deepduel.runs.length import RunLength
from deepduel.runs.training_state import State
from tfrecords_tools.errors import UsageError


def test_a_number_of_epochs_is_the_plan_whatever_they_take():
    assert RunLength.parse("13") == RunLength(13)
    assert RunLength(13).planned([]) == RunLength(13).planned([1e6]) == 13


def test_a_time_has_no_plan_before_its_first_epoch():
    assert RunLength.parse("55min") == RunLength(None, 55.0)
    assert RunLength.parse("0.5min").planned([]) is None


@pytest.mark.parametrize(
    ("seconds", "planned"),
    [
        ([60], 10),
        ([59], 10),
        ([61], 9),
        ([120, 60], 9),  # 420 s are left: seven of the faster
        ([60, 60, 60, 240], 7),  # one that was disturbed is not what the next are thought to take
        ([700], 1),
        ([60] * 10, 10),
        ([60] * 9 + [70], 10),
    ],
)
def test_as_many_epochs_are_planned_as_fit_by_the_last_three(seconds, planned):
    assert RunLength.parse("10min").planned(seconds) == planned


@pytest.mark.parametrize("text", ["0", "-1", "0min", "1.5", "two", "5 min", "1h", ""])
def test_what_is_neither_is_refused(text):
    with pytest.raises(UsageError, match="epochs must be"):
        RunLength.parse(text)


def test_a_run_that_goes_on_has_its_plan_at_once(tmp_path):
    duel = types.SimpleNamespace(tasks=(), planned_steps=tf.Variable(0))
    stand = State(epoch=1, step=4, history=({"epoch": 1, "seconds": 20.0},))
    options = {"steps_per_epoch": 7, "save_seconds": None, "save_steps": None, "deadline": None}
    keeper = Keeper(duel, tmp_path, stand, length=RunLength.parse("1min"), **options)
    assert keeper.planned == 3
    assert int(duel.planned_steps) == 3 * 7
