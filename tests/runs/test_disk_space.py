import errno
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel import train
from deepduel.runs import disk_space
from tests.conftest import history_rows, run_command
from tests.helpers import tiny_network
from tfrecords_tools.errors import DataError


@pytest.fixture(scope="module")
def trainer():
    """A state of 4 MB, models of 2 MB an epoch."""
    variables = [keras.Variable(tf.zeros((500, 1000)))]
    model = types.SimpleNamespace(saved_model=types.SimpleNamespace(variables=variables))
    task = types.SimpleNamespace(model=model)
    return types.SimpleNamespace(tasks=[task], state_variables=lambda: variables * 2)


def free(patch, count: int) -> None:
    patch.setattr(disk_space, "free_bytes", lambda folder: count)


def test_a_run_needs_four_states_and_the_models_that_are_kept(trainer):
    assert disk_space.state_bytes(trainer) == 4_000_000
    assert disk_space.epoch_bytes(trainer) == 2_000_000
    assert disk_space.whole_run_bytes(trainer, epochs=10, keep_epochs=0) == 36_000_000
    assert disk_space.whole_run_bytes(trainer, epochs=10, keep_epochs=1) == 22_000_000


def test_too_little_space_for_an_epoch_is_refused_and_for_the_run_is_said(
    trainer, tmp_path, monkeypatch, capsys
):
    free(monkeypatch, 5_900_000)
    with pytest.raises(DataError) as error:
        disk_space.check(trainer, tmp_path, epochs=10, keep_epochs=0)
    assert str(error.value) == (
        f"{tmp_path}: its disk has 5.9 MB free, but a state needs 4.0 MB and an epoch's models 2.0 MB; "
        "free some space, or give a --workdir on another disk"
    )
    free(monkeypatch, 35_000_000)
    disk_space.check(trainer, tmp_path, epochs=10, keep_epochs=0)
    assert "warning: the run needs up to 36.0 MB" in capsys.readouterr().out
    disk_space.check(trainer, tmp_path, epochs=10, keep_epochs=1)
    assert capsys.readouterr().out == ""
    assert disk_space.free_bytes(tmp_path / "not" / "there") > 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "history.csv"), "history.csv: No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "run: Disk quota exceeded; a state needs 4.0 MB"),
        (tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"), "run: No space left"),
    ],
)
def test_each_way_in_which_a_disk_is_full_is_one_line(trainer, tmp_path, error, message):
    with pytest.raises(DataError) as raised, disk_space.explained(trainer, tmp_path / "run"):
        raise error
    assert message in str(raised.value) and "resume with the same command" in str(raised.value)


def test_other_errors_pass(trainer, tmp_path):
    with pytest.raises(PermissionError), disk_space.explained(trainer, tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def full(file, **arrays) -> None:
    """What np.savez does on a full disk: writes the beginning, and fails without the file's name."""
    file.write(b"PK")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
def test_a_run_on_a_full_disk_names_the_file_leaves_no_partial_and_resumes(
    toy_shards, tmp_path, monkeypatch, capsys
):
    tiny_network.install(monkeypatch)
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *tiny_network.RUN
    words = *words, "--epochs=3", "--keep_epochs=1"
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        assert run_command(train, *words) == 1
    error = capsys.readouterr().err
    assert (
        f"{tmp_path}/run/resume/state-000000-000000000.npz: No space left on device; a state needs" in error
    )
    assert "Traceback" not in error
    assert not list((tmp_path / "run").rglob("*partial*"))
    assert run_command(train, *words) == 0
    assert len(history_rows(tmp_path / "run")) == 3
    names = sorted(path.name for path in (tmp_path / "run" / "category").iterdir())
    assert names == ["best.keras", "epoch-03.keras"]
