import re

import pytest

from deepduel import profile_input
from deepduel.reading.bottleneck import Rates, Situation, verdict
from deepduel.reading.options import READERS
from tests.conftest import run_command

MEMORY = 90e3  # images/s read from memory


@pytest.mark.slow
@pytest.mark.parametrize("words", [[f"--reader={reader}"] for reader in READERS] + [["--cache=ram"]])
def test_every_stage_has_a_rate_and_the_last_line_says_what_limits(toy_shards, capsys, words):
    common = f"--data_dir={toy_shards}", "--batch_size=50", "--image_size=16", "--seconds=0.05"
    common += "--augmentation=none", "--rotation_range=20"
    assert run_command(profile_input, *common, *words) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    stages = 8 if words == ["--cache=ram"] else 6
    rates = [int(re.search(r"([\d,]+)$", line)[1].replace(",", "")) for line in lines[-stages - 1 : -1]]
    assert lines[-stages - 2].split() == ["stage", "images/s"]
    assert all(rate > 0 for rate in rates)
    assert lines[-1].startswith("The bottleneck is ")


@pytest.mark.parametrize(
    ("rates", "situation", "begins", "flag"),
    [
        ((MEMORY, 8e3, 8e3, 2e3, 1900), {}, "augmentation on the CPU, which", "--augmentation"),
        ((MEMORY, 8e3, 8e3, 2e3, 1900), {"device": "GPU"}, "augmentation on the GPU", "would not help"),
        ((MEMORY, 4e3, 4e3, 9e3, 3e3), {}, "decoding (4,000 images/s)", "or add cores"),
        ((MEMORY, 4e3, 4e3, 9e3, 3e3), {"fast": True}, "decoding (4,000 images/s)", "add cores"),
        ((MEMORY, 490, 490, 9e3, 480), {"in_memory": False}, "the disk (500 images/s)", "--cache"),
        ((MEMORY, 8e3, 4e3, 9e3, 3e3), {}, "Python and tf.data around decoding", "--batch_size"),
        ((MEMORY, 8e3, 4e3, 9e3, 3e3), {"reader": "sequential"}, "Python and tf.data", "--reader=random"),
        ((MEMORY, 4e3, 4e3, 9e3, 3e3, 20e3, 8e3), {"cache": "ram"}, "decoding",
         "with --cache=ram it is 8,000 instead of 3,000 images/s, and the bottleneck is augmentation"),
    ],
)  # fmt: skip
def test_the_verdict_names_the_limit_and_the_flag(rates, situation, begins, flag):
    text = verdict(Rates(500, *rates), Situation(**situation))
    assert text.startswith(f"The bottleneck is {begins}")
    assert flag in text


def test_a_cache_and_the_sequential_reader_do_not_go_together(toy_shards, capsys):
    words = f"--data_dir={toy_shards}", "--reader=sequential", "--cache=ram"
    assert run_command(profile_input, *words) == 2
    assert "cache=ram needs reader=random" in capsys.readouterr().err


def test_an_unknown_preset_is_refused(toy_shards, capsys):
    assert run_command(profile_input, f"--data_dir={toy_shards}", "--augmentation=heavy") == 2
    assert "--augmentation must be one of" in capsys.readouterr().err


def test_an_unknown_split_is_named(toy_shards, capsys):
    assert run_command(profile_input, f"--data_dir={toy_shards}", "--split=extra") == 2
    assert "no split 'extra'" in capsys.readouterr().err
