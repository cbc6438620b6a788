import types

import keras
import pytest

from deepduel.reading.order import Worker
from deepduel.runs import agreement
from deepduel.training.team import Team
from tfrecords_tools.errors import DataError

FLAGS = "# a comment\n--seed=0\n--data_dir=/a\n--backbone=x\n--backbone=category=y\n"


class Second(Team):
    """Worker 1 of 2, which hears of worker 0 what `change` makes of its own values."""

    worker = Worker(1, 2)

    def __init__(self, change):
        self._change = change

    def gather(self, value):
        return [self._change(value), value]


def refusal(change) -> str:
    with pytest.raises(DataError) as error:
        agreement.check_start(Second(change), FLAGS, "5e1f")
    return str(error.value)


def test_workers_with_the_same_flags_data_and_code_agree():
    agreement.check_start(Second(dict), FLAGS, "5e1f")


def test_the_first_difference_is_named_with_both_values():
    def other_flag(facts):
        return facts | {"--backbone": "--backbone=z"}

    assert refusal(other_flag).startswith(
        "worker 1 differs from worker 0 in --backbone: --backbone=x --backbone=category=y there, --backbone=z"
    )
    assert "the data (SHA-256): 5e1f there" in refusal(lambda facts: facts | {"the data (SHA-256)": "0"})
    assert "in --ema: nothing there" in refusal(lambda facts: facts | {"--ema": "--ema=0.9"})
    assert "in the code of deepduel" in refusal(lambda facts: facts | {"the code of deepduel (SHA-256)": "0"})


def test_folders_may_lie_elsewhere_on_each_machine():
    flags = FLAGS.replace("--data_dir=/a", "--data_dir=/b\n--threads=3")
    own = agreement._by_flag(FLAGS)
    agreement.check_start(Second(lambda facts: facts | own), flags, "5e1f")


def test_other_weights_end_the_run():
    variable = keras.Variable([1.0])
    trainer = types.SimpleNamespace(team=Second(int), tasks=[], state_variables=lambda: [variable])
    agreement.check_weights(trainer)
    trainer.team = Second(lambda checksum: checksum + 1)
    with pytest.raises(DataError, match="the weights of worker 1 are not those of worker 0"):
        agreement.check_weights(trainer)
