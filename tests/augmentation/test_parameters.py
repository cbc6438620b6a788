"""The table of the augmentation's parameters."""

import dataclasses
import math
import pathlib

import pytest

from deepduel.augmentation.mixing_options import Mixing
from deepduel.augmentation.options import Augmentation
from deepduel.augmentation.parameters import changed, markdown_table, parameters, parse_bool, text_of
from deepduel.augmentation.presets import PRESETS


def test_streams_stay_what_they_are():
    """Another number would change what a seed does to an image, and with it every run that is resumed."""
    streams = [row.streams for row in parameters(Augmentation).values()]
    assert {name: number for part in streams for name, number in part.items()} == {
        "theta": 0, "tx": 1, "ty": 2, "shear": 3, "zx": 4, "zy": 5, "flip_horizontal": 6, "flip_vertical": 7,
        "brightness": 8, "quarter_turns": 9, "shift_y": 10, "shift_x": 11, "crop_top": 12, "crop_left": 13,
        "blur_sigma": 14, "blur_applied": 15, "jpeg_quality": 16, "jpeg_applied": 17, "tx_sign": 18,
        "ty_sign": 19, "channel_shift_intensity": 20,
    }  # fmt: skip


def test_no_two_random_numbers_share_a_stream():
    numbers = [number for row in parameters(Augmentation).values() for number in row.streams.values()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("options", [Augmentation, Mixing])
def test_every_field_is_a_row_with_help_and_a_default_within_its_limits(options):
    for field in dataclasses.fields(options):
        row = parameters(options)[field.name]
        assert row.help.endswith(".") and row.help[0].isupper()
        row.kind.check(field.name, field.default, row)


@pytest.mark.parametrize("options", [Augmentation, Mixing])
def test_help_of_a_class_describes_every_parameter(options):
    for name, row in parameters(options).items():
        assert f"\n  {name}: {row.help}" in options.__doc__ and row.unit in options.__doc__


def test_what_a_parameter_needs_is_a_parameter():
    rows = parameters(Augmentation)
    for row in rows.values():
        for need in row.needs:
            name, _, value = need.partition("=")
            assert name in rows and (not value or value in rows[name].choices)


def test_the_table_has_a_line_per_parameter_and_the_presets_values():
    lines = markdown_table((Augmentation, Mixing), PRESETS).splitlines()
    assert lines[0] == (
        "| flag | meaning | unit | default | `original` | `forensic` | `robust` | `light` | `none` |"
    )
    assert set(lines[1]) == {"|", "-"}
    assert {line.count("|") for line in lines} == {10}
    flags = [line.split("`")[1] for line in lines[2:]]
    assert flags == [f"--{name}" for name in {**parameters(Augmentation), **parameters(Mixing)}]
    assert lines[2] == (
        "| `--rotation_range` | Random rotation by up to this angle either way. | degrees | 0.0 | 30 | | | "
        "10 | |"
    )


def test_the_page_has_the_table():
    shown = {name: PRESETS[name] for name in ("original", "light", "forensic", "robust")}
    page = pathlib.Path(__file__).parents[2] / "docs" / "augmenting.md"
    assert markdown_table((Augmentation, Mixing), shown) in page.read_text("utf-8")


def test_values_are_written_as_in_flags():
    assert [text_of(value) for value in ((0.3, 1.7), True, None, 5, 5.0)] == [
        "0.3,1.7", "true", "none", "5", "5.0",
    ]  # fmt: skip
    assert changed(Augmentation(rotation_range=0, horizontal_flip=True)) == {"horizontal_flip": True}


def test_only_true_and_false_are_truth_values():
    assert [parse_bool(text) for text in ("true", "1", "False", "0")] == [True, True, False, False]
    with pytest.raises(ValueError):
        parse_bool("yes")


@pytest.mark.parametrize("value", [-math.inf, (3, math.inf), (math.nan,)])
def test_a_shift_is_finite(value):
    with pytest.raises(ValueError):
        Augmentation(width_shift_range=value)
