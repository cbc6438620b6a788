import pytest

from deepduel.runs.length import RunLength
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
