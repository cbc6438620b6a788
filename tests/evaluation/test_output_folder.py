"""Evaluations of several data sets lie side by side."""

import dataclasses
import json

import pytest

from deepduel.evaluation import output_folder
from deepduel.networks.run_card import RunCard
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest


@pytest.fixture
def own(toy_run, toy_shards):
    return manifest.load(toy_shards), RunCard.load(toy_run)


def test_the_runs_own_data_go_by_the_split_and_others_by_their_name_too(own, tmp_path):
    data, card = own
    assert output_folder.choose(tmp_path, None, "test", data, card) == tmp_path / "evaluation" / "test"
    other = dataclasses.replace(data, name="phone", source="0" * 64)
    folder = tmp_path / "evaluation" / "phone-test"
    assert output_folder.choose(tmp_path, None, "test", other, card) == folder
    assert output_folder.choose(tmp_path, "june", "test", other, card).name == "june"


def test_the_figures_of_other_data_are_not_overwritten(own, tmp_path):
    data, card = own
    folder = tmp_path / "evaluation" / "test"
    folder.mkdir(parents=True)
    for source, fits in ((data.source, True), ("0" * 64, False)):
        (folder / "metrics.json").write_text(json.dumps({"about": {"data_sha256": source}}))
        if fits:
            assert output_folder.choose(tmp_path, None, "test", data, card) == folder
        else:
            with pytest.raises(UsageError, match="holds the evaluation of other data .* another --name"):
                output_folder.choose(tmp_path, None, "test", data, card)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_a_name_is_that_of_a_folder(own, tmp_path, name):
    with pytest.raises(UsageError, match="must be of letters.* give it another one with --name"):
        output_folder.choose(tmp_path, name, "test", *own)
