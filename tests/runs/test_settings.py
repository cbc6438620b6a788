"""Which flags may change in a begun run, and when two flagfiles mean the same."""

import pathlib

import pytest

from deepduel.runs import settings, train_flags
from deepduel.runs.settings import MAY_CHANGE, Change, changes, may_change

AXES = ["authenticity", "category"]
DEFAULTS = "--epochs=1\n--learning_rate=0.001\n--early_stopping=0\n--cache=none\n--seed=0\n"


def changed(before: str, after: str) -> list[Change]:
    lines = lambda flags: "\n".join(flags.split()) + "\n"
    return changes(lines(before), lines(after), DEFAULTS, AXES)


@pytest.mark.parametrize(
    "before, after",
    [
        ("", "--epochs=1"),
        ("--early_stopping=2", "--early_stopping=2 --early_stopping=2"),
        ("--early_stopping=2", "--early_stopping=0 --early_stopping=2"),
        ("--early_stopping=authenticity=2 --early_stopping=category=2", "--early_stopping=2"),
        ("--early_stopping=2", "--early_stopping=1 --early_stopping=category=2 --early_stopping=2"),
        ("--learning_rate=0.001", "--learning_rate=1e-3"),
        ("--rotation_range=15", "--rotation_range=15.0"),
        ("", "--tasks=authenticity,category"),
    ],
)
def test_values_that_amount_to_the_same_are_no_change(before, after):
    assert changed(before, after) == []


@pytest.mark.parametrize(
    "before, after, flag",
    [
        ("--early_stopping=2", "--early_stopping=2 --early_stopping=category=3", "early_stopping"),
        ("", "--seed=1", "seed"),
        ("--rotation_range=15", "", "rotation_range"),
        ("--tasks=category", "", "tasks"),
        ("--backbone=other=x", "--backbone=x", "backbone"),
    ],
)
def test_other_values_are_a_change_that_is_refused(before, after, flag):
    (change,) = changed(before, after)
    assert change.flag == flag and not may_change(change)


def test_what_a_preset_means_is_part_of_the_settings():
    before = "# augmentation of category: rotation 30\n"
    (change,) = changes(before, before.replace("30", "10"), DEFAULTS, AXES)
    assert change.flag == "# augmentation of category" and not may_change(change)


def test_a_flag_that_repeats_a_value_of_the_preset_is_no_change():
    comment = "# augmentation of category: rotation 30\n"
    assert (
        changes(f"--augmentation=light\n{comment}", f"--rotation_range=30\n{comment}", DEFAULTS, AXES) == []
    )


def test_pixels_may_come_from_another_cache_but_features_stay_features():
    (change,) = changed("--cache=none", "--cache=ram")
    assert may_change(change)
    (change,) = changed("--cache=features", "--cache=features:elsewhere")
    assert may_change(change)
    (change,) = changed("--cache=ram", "--cache=features")
    assert not may_change(change)


def test_the_flags_that_may_change_exist_and_the_page_has_their_table():
    from absl import flags

    known = flags.FlagValues()
    train_flags.define(known)
    assert set(MAY_CHANGE) <= set(known)
    table = "".join(f"| `--{name}` | {reason} |\n" for name, reason in settings.MAY_CHANGE.items())
    page = pathlib.Path(__file__).parents[2] / "docs" / "training.md"
    assert table in page.read_text("utf-8")
