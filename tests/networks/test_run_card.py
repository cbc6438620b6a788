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
