import re

import pytest

from deepduel import profile_input
from deepduel.reading import READERS
from tests.conftest import run_command

STAGES = ("read", "decode", "pipeline", "augmentation", "together")


@pytest.mark.parametrize("reader", READERS)
def test_every_stage_has_a_rate_and_the_last_line_says_what_limits(toy_shards, capsys, reader):
    words = f"--data_dir={toy_shards}", "--batch_size=50", "--image_size=16", "--seconds=0.05"
    words += "--augmentation=none", "--rotation_range=20"
    assert run_command(profile_input, *words, f"--reader={reader}") == 0
    lines = capsys.readouterr().out.strip().splitlines()
    rates = [int(re.search(r"([\d,]+)$", line)[1].replace(",", "")) for line in lines[-6:-1]]
    assert all(rate > 0 for rate in rates)
    assert "limit" in lines[-1]


@pytest.mark.parametrize(
    ("rates", "options", "begins", "flag"),
    [
        ((90e3, 8e3, 8e3, 2e3, 1900), {}, "Augmentation limits (2,000 images/s)", "--augmentation"),
        ((90e3, 4e3, 4e3, 9e3, 3e3), {}, "Decoding limits (4,000 images/s)", "--fast_decode; with --cache"),
        ((90e3, 4e3, 4e3, 9e3, 3e3), {"fast": True}, "Decoding limits (4,000 images/s)", "add cores"),
        ((500, 490, 490, 9e3, 480), {}, "The disk limits (500 images/s)", "--cache"),
        ((90e3, 8e3, 4e3, 9e3, 3e3), {}, "The pipeline around decoding limits", "--batch_size"),
        ((90e3, 8e3, 4e3, 9e3, 3e3), {"reader": "sequential"}, "The pipeline around", "--reader=random"),
    ],
)
def test_the_verdict_names_the_limit_and_the_flag(rates, options, begins, flag):
    options = {"reader": "random", "fast": False} | options
    text = profile_input.verdict(dict(zip(STAGES, rates, strict=True)), **options)
    assert text.startswith(begins)
    assert flag in text


def test_an_unknown_preset_is_refused(toy_shards, capsys):
    assert run_command(profile_input, f"--data_dir={toy_shards}", "--augmentation=heavy") == 2
    assert "--augmentation must be one of" in capsys.readouterr().err


def test_an_unknown_split_is_named(toy_shards, capsys):
    assert run_command(profile_input, f"--data_dir={toy_shards}", "--split=dev") == 2
    assert "no split 'dev'" in capsys.readouterr().err
