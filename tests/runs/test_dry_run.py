import pytest

from deepduel import train
from deepduel.training import devices
from tests.conftest import run_command
from tests.helpers import tiny_network


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    tiny_network.install(monkeypatch)


@pytest.mark.slow
def test_a_dry_run_estimates_the_cost_and_writes_nothing(toy_shards, tmp_path, capsys):
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *tiny_network.RUN
    assert run_command(train, *words, "--dry_run", "--cache=ram", "--micro_batch=auto") == 0
    output = capsys.readouterr().out
    for text in (
        "category_extractor",
        "GB  taken by the process so far",
        "GB  estimated in total, of",
        "3 steps of 60 images an epoch",
        "nothing",
    ):
        assert text in output
    assert not (tmp_path / "run").exists()


def test_a_dry_run_that_needs_more_memory_than_there_is_fails(toy_shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda: (1000, "GPU memory"))
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *tiny_network.RUN
    assert run_command(train, *words, "--dry_run") == 1
    printed = capsys.readouterr()
    assert "GB of 0.0 GB GPU memory; lower --micro_batch" in printed.err
    assert "taken by the process" not in printed.out  # which is RAM, not the GPU's memory
    assert not (tmp_path / "run").exists()
