import os
import re

import pytest

from experiments import check_exactness, kill_training
from tests.conftest import run_command

pytestmark = pytest.mark.numeric


@pytest.mark.slow
@pytest.mark.scale  # and so only with the older processor's kernels, which runs all that is numeric
def test_xception_in_micro_batches_is_plain_keras_on_the_full_batch(toy_shards, capsys):
    """Three steps; experiments/check_exactness.py does fifty."""
    words = f"--data_dir={toy_shards}", "--image_size=71", "--steps=3", "--batch_size=8", "--micro_batch=3"
    assert run_command(check_exactness, *words) == 0
    (line,) = re.findall(r"step 3: .*", capsys.readouterr().out)
    assert float(line.split()[-1]) > 1e-3  # it learns


@pytest.mark.skipif("DEEPDUEL_KILLS" not in os.environ, reason="minutes: DEEPDUEL_KILLS=20 kills that often")
def test_runs_that_are_killed_end_as_those_that_are_not(toy_shards, tmp_path):
    words = (
        f"--data_dir={toy_shards}",
        f"--scratch={tmp_path}/runs",
        f"--kills={os.environ['DEEPDUEL_KILLS']}",
    )
    assert run_command(kill_training, *words) == 0
