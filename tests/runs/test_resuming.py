"""Runs that were ended at any moment and are resumed: as if nothing had happened."""

import shlex
import signal
import subprocess
import sys
import time

import keras
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepduel import train
from deepduel.runs import tensorboard
from deepduel.runs.callbacks import Console
from deepduel.runs.checkpointing import Checkpoint
from deepduel.training.trainer import MultiTaskTrainer
from tests.conftest import history_rows, run_command
from tests.helpers import tiny_network

pytestmark = pytest.mark.slow

STEPWISE = (
    *tiny_network.RUN,
    "--epochs=2",
    "--save_every=1steps",
    "--optimizer=adamw",
    "--warmup=4steps",
    "--ema=0.9",
    "--label_smoothing=0.1",
    "--class_weights=balanced",
    "--clip_norm=1",
)


PROGRAM = """
import sys
from tests.helpers import tiny_network
tiny_network.install()
from deepduel import train
sys.exit(train.entry())
"""


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        tiny_network.install(patch)
        yield


class Crash(Exception):
    """Stands for a power cut: nothing is tidied up behind it."""


@pytest.fixture(scope="module")
def whole_run(toy_shards, tmp_path_factory):
    """Two epochs of three steps each, uninterrupted."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert run_command(train, f"--data_dir={toy_shards}", f"--workdir={workdir}", *STEPWISE) == 0
    return workdir


def saved(run) -> list[str]:
    return sorted(path.name for path in (run / "resume").iterdir())


def assert_same_run(run, expected):
    for epoch in (1, 2):
        a, b = (
            keras.models.load_model(folder / "category" / f"epoch-0{epoch}.keras")
            for folder in (run, expected)
        )
        assert all((x == y).all() for x, y in zip(a.get_weights(), b.get_weights(), strict=True))
    timings = ("seconds", "images_per_second", "input_wait_share")
    for one, other in zip(history_rows(run), history_rows(expected), strict=True):
        assert {k: v for k, v in one.items() if k not in timings} == {
            k: v for k, v in other.items() if k not in timings
        }


@pytest.mark.parametrize("crash_at", [3, 5])  # before the first validation, within the second epoch
def test_a_crash_costs_nothing(toy_shards, whole_run, tmp_path, monkeypatch, crash_at):
    steps = 0
    on_train_batch_end = Checkpoint.on_train_batch_end

    def crashing(checkpoint, batch, logs=None):
        nonlocal steps
        steps += 1
        if steps == crash_at:
            raise Crash
        on_train_batch_end(checkpoint, batch, logs)

    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *STEPWISE
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "on_train_batch_end", crashing)
        patch.setattr(tensorboard, "SECONDS_BETWEEN_POINTS", 0)
        with pytest.raises(Crash):
            run_command(train, *words)
        patch.setattr(Checkpoint, "on_train_batch_end", on_train_batch_end)
        assert run_command(train, *words) == 0
    assert_same_run(tmp_path / "run", whole_run)
    points = {}
    for name in (".", "train", "validation"):
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / name), size_guidance={"tensors": 0})
        events.Reload()
        points[name] = {tag: [at.step for at in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    assert points["train"]["step_loss/category"] == [60, 120, 168, 228, 288, 336]
    assert points["validation"]["epoch_roc_auc/category"] == [168, 336]
    assert points["."]["flags"] == [0]


def test_sigkill_and_sigterm_cost_nothing(toy_shards, whole_run, tmp_path):
    """A real process, killed once with SIGKILL and once with SIGTERM, each as soon as a state is there."""
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *STEPWISE]
    command = [sys.executable, "-c", PROGRAM, *words]
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        before = set(tmp_path.glob("run/resume/state-*"))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while process.poll() is None and set(tmp_path.glob("run/resume/state-*")) <= before:
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == code, output
    assert f"resume with:\n  {shlex.join(['python', '-m', 'deepduel.train', *words])}\n" in output
    assert run_command(train, *words) == 0
    assert_same_run(tmp_path / "run", whole_run)


def test_a_signal_during_validation_costs_nothing(toy_shards, whole_run, tmp_path, monkeypatch, capsys):
    """Before the first step, then in a validation before which no state was saved."""
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *STEPWISE
    train_step = MultiTaskTrainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(MultiTaskTrainer, "train_step", lambda *_: signal.raise_signal(signal.SIGINT))
        assert run_command(train, *words) == 130
        assert saved(tmp_path / "run") == ["state-000000-000000000.npz"]
        patch.setattr(MultiTaskTrainer, "train_step", train_step)
        patch.setattr(Console, "on_test_batch_end", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        assert run_command(train, *words, "--save_every=900s") == 143
    output = capsys.readouterr().out
    assert "SIGINT: stopped before the first step of this session; resume with:" in output
    assert "SIGTERM: stopped and saved at epoch 1, step 2; resume with:" in output
    assert run_command(train, *words) == 0
    assert_same_run(tmp_path / "run", whole_run)


def test_max_minutes_stops_with_the_command_to_resume(toy_shards, tmp_path, capsys):
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *STEPWISE
    assert run_command(train, *words, "--max_minutes=0.0001", "--profile_steps=1:2") == 0
    assert list((tmp_path / "run" / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb"))
    output = capsys.readouterr().out
    assert "--max_minutes: stopped and saved at epoch 1, step 1; resume with:" in output
    assert f"python -m deepduel.train --flagfile={tmp_path}/run/train.flags" in output
    assert saved(tmp_path / "run") == ["state-000000-000000000.npz", "state-000000-000000001.npz"]


def test_more_epochs_continue_where_a_finished_run_ended(toy_shards, whole_run, tmp_path):
    """One epoch, then a second: the run of two epochs, bit by bit."""
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *STEPWISE
    assert run_command(train, *words, "--epochs=1") == 0
    assert run_command(train, *words, "--epochs=2") == 0
    assert_same_run(tmp_path / "run", whole_run)


@pytest.mark.scale
@pytest.mark.parametrize("schedule", ["onecycle", "step", "plateau:1"])
def test_every_schedule_continues_where_it_was(toy_shards, tmp_path, schedule):
    """Nine steps in one session, and in three: one ends after a step, one within the second epoch."""
    weights = []
    for sessions in ((3,), (1, 5, 3)):
        workdir = tmp_path / str(len(sessions))
        words = f"--data_dir={toy_shards}", f"--workdir={workdir}", *tiny_network.RUN, "--save_every=1steps"
        words = *words, "--epochs=3", f"--schedule={schedule}", "--optimizer=sgd"
        for number in sessions:
            with pytest.MonkeyPatch.context() as patch:
                if number != 3:
                    patch.setattr(Console, "on_train_batch_end", stopping_after(number))
                assert run_command(train, *words) == (0 if number == 3 else 143)
        weights.append(keras.models.load_model(workdir / "category" / "epoch-03.keras").get_weights())
    assert all((a == b).all() for a, b in zip(*weights, strict=True))


def stopping_after(count: int):
    """A callback that sends SIGTERM in its so many-th step."""
    steps = []

    def stop(console, batch, logs=None):
        steps.append(batch)
        if len(steps) == count:
            signal.raise_signal(signal.SIGTERM)

    return stop
