"""RUN/run.json."""

import dataclasses
import json

import pytest

from deepduel.errors import DataError
from deepduel.networks.run_card import RunCard

CARD = RunCard(
    tasks={"category": {"classes": ["cat", "hören"], "image_size": 224, "crop_size": 0}},
    size=(200, 160), fit="pad", fast_decode=True, data_name="pets", data_source="abc", seed=7,
)  # fmt: skip


def test_a_card_is_read_as_it_was_saved(tmp_path):
    CARD.save(tmp_path)
    assert RunCard.load(tmp_path) == CARD
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_card_keeps_its_names_on_disk(tmp_path):
    CARD.save(tmp_path)
    document = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert document == dataclasses.asdict(CARD) | {"size": [200, 160]}


def test_a_folder_without_a_card_is_named_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match="no run.json, so this is not a run's folder; train with"):
        RunCard.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"size": [1, 2]}', '{"size": 3}'])
def test_a_damaged_card_is_one_clear_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match="run.json: unreadable .*; train the run again") as error:
        RunCard.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": {"..": CARD.tasks["category"]}},
        {"tasks": {"a/b": CARD.tasks["category"]}},
        {"tasks": {"category": {"classes": ["cat"], "image_size": 0}}},
        {"tasks": {"category": {"classes": ["cat"], "image_size": 1 << 40}}},
        {"tasks": {"category": {"classes": "cat", "image_size": 224}}},
        {"tasks": {"category": {"image_size": 224}}},
        {"tasks": [1]},
        {"size": [200, 1 << 40]},
        {"size": [200]},
        {"size": [0, 0]},
        {"fit": "../crop"},
        {"fast_decode": "no"},
        {"seed": 1 << 70},
        {"seed": 0.5},
    ],
)
def test_a_hostile_card_is_one_line(tmp_path, changes):
    (tmp_path / "run.json").write_text(json.dumps(dataclasses.asdict(CARD) | changes))
    with pytest.raises(DataError, match="run.json: unreadable .*Expected|missing required") as error:
        RunCard.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_card_that_is_nested_too_deeply_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text('{"tasks":' * 100_000)
    with pytest.raises(DataError, match="run.json: unreadable .nested too deeply"):
        RunCard.load(tmp_path)


def test_a_card_of_an_earlier_version_names_no_libraries(tmp_path):
    document = dataclasses.asdict(CARD)
    del document["libraries"]
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert RunCard.load(tmp_path).libraries == {}
