"""Trainings of several processes on this machine, connected over loopback."""

import json
import signal
import time

import numpy as np
import pytest

from tests.helpers import tiny_network
from tests.helpers.workers import PROGRAM, Workers

pytestmark = [pytest.mark.slow, pytest.mark.scale]

# 54 images in batches of 52 and 2: two of four workers have no image of the second one.
RUN = (
    *tiny_network.RUN,
    "--train_split=validation",
    "--validation_split=train",
    "--tasks=category,authenticity",
    "--batch_norm=frozen",
    "--fine_tune=authenticity=all",
    "--fine_tune=category=none",
    "--weights=none",
    "--batch_size=52",
    "--micro_batch=8",
    "--epochs=3",
    "--optimizer=adamw",
    "--warmup=2steps",
    "--ema=0.9",
    "--clip_norm=1",
    "--label_smoothing=0.1",
    "--class_weights=balanced",
    "--save_every=1steps",
)
SLOW_STEPS = PROGRAM.replace(
    "sys.exit(",
    """
import time
from deepduel.runs.callbacks import Clock
Clock.on_train_batch_end = lambda *args, **logs: time.sleep(0.5)
sys.exit(""",
)


def document(run) -> dict:
    """What a run's last state says beside its arrays."""
    with np.load(max((run / "resume").glob("state-*.npz"))) as file:
        return json.loads(file["about"].tobytes())


def state(run) -> dict[str, np.ndarray]:
    """The arrays of a run's last state, and its document without durations."""
    with np.load(max((run / "resume").glob("state-*.npz"))) as file:
        arrays = {name: file[name] for name in file.files if name != "about"}
    about = document(run)
    for row in about["history"]:
        for name in ("seconds", "images_per_second", "input_wait_share"):
            del row[name]
    return arrays | {"epochs": np.array(about["epoch"]), "history": np.array(values(about["history"]))}


def values(history) -> list[float]:
    """Those of all rows; the row of an epoch has none of a task that has stopped."""
    return [value for row in history for value in row.values()]


def difference(one, other) -> float:
    """The largest difference between two states."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name].astype(float) - other[name]).max()) for name in one)


def trained(folder, shards, count, *words, program=PROGRAM) -> dict[str, np.ndarray]:
    """The last state of a training that ends well."""
    command = [f"--data_dir={shards}", f"--workdir={folder / 'run'}", *RUN, *words]
    with Workers(folder, command, count, program) as workers:
        assert workers.codes() == [0] * count, "".join(workers.text(index) for index in range(count))
    return state(folder / "run")


@pytest.fixture(scope="module")
def alone(toy_shards, tmp_path_factory):
    """The state after a training of one process."""
    return trained(tmp_path_factory.mktemp("alone"), toy_shards, 1)


@pytest.mark.parametrize("count", [2, 4])
def test_several_workers_train_as_one_does_with_partial_and_empty_parts(alone, toy_shards, tmp_path, count):
    assert difference(trained(tmp_path, toy_shards, count), alone) < 1e-6


def test_parts_of_whole_micro_batches_give_the_bits_of_one_process(toy_shards, tmp_path):
    words = ("--batch_size=18", "--micro_batch=9", "--fine_tune=category=all")
    one, two = (trained(tmp_path / str(count), toy_shards, count, *words) for count in (1, 2))
    assert difference(one, two) == 0


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_all_and_a_restart_equals_the_uninterrupted_run(
    alone, toy_shards, tmp_path, killed
):
    command = [f"--data_dir={toy_shards}", f"--workdir={tmp_path / 'run'}", *RUN]
    with Workers(tmp_path, command, 2, SLOW_STEPS) as workers:
        workers.wait_for(tmp_path / "run" / "resume", "state-000001-000000001.npz")
        workers.processes[killed].kill()
        started, survivor = time.monotonic(), 1 - killed
        assert workers.processes[survivor].wait(30) == 3
        assert time.monotonic() - started < 10
        line = workers.text(survivor).splitlines()[-1]
        assert f"worker {killed} of 2 (localhost:" in line
        assert "was killed" in line
    assert difference(trained(tmp_path, toy_shards, 2 if killed else 1), alone) < 1e-6


def test_a_stopped_worker_ends_all_within_a_minute(toy_shards, tmp_path):
    command = [
        f"--data_dir={toy_shards}",
        f"--workdir={tmp_path / 'run'}",
        *RUN,
        "--batch_size=51",
        "--epochs=1000",
    ]
    with Workers(tmp_path, command, 3) as workers:
        workers.wait_for(tmp_path / "run" / "resume", "state-000001-*.npz")
        workers.processes[1].send_signal(signal.SIGSTOP)
        started = time.monotonic()
        assert [workers.processes[index].wait(90) for index in (0, 2)] == [3, 3]
        assert time.monotonic() - started < 60
        for index in 0, 2:
            assert "worker 1 of 3" in workers.text(index).splitlines()[-1]
        workers.processes[1].send_signal(signal.SIGCONT)
        assert workers.processes[1].wait(30) == 3


def test_a_machine_that_loses_its_power_ends_all_others_within_ten_seconds(toy_shards, tmp_path):
    """Nothing that arrives at worker 1 is acknowledged any more, on no connection, and it stops."""
    program = PROGRAM.replace(
        "sys.exit(",
        """
import ctypes, os, pathlib, signal, socket, struct
from deepduel.runs.callbacks import Clock
def off(clock, epoch, logs=None):
    begin(clock, epoch, logs)
    if epoch and not clock._team.leads:
        return_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        attached = struct.pack("HP", 1, ctypes.addressof(return_nothing))
        for number in map(int, os.listdir("/proc/self/fd")):
            if pathlib.Path(f"/proc/self/fd/{number}").is_socket():
                end = socket.socket(fileno=os.dup(number))
                if end.family in (socket.AF_INET, socket.AF_INET6):
                    end.setsockopt(socket.SOL_SOCKET, 26, attached)  # SO_ATTACH_FILTER
        pathlib.Path(os.environ["OFF"]).touch()
        os.kill(os.getpid(), signal.SIGSTOP)
begin = Clock.on_epoch_begin
Clock.on_epoch_begin = off
sys.exit(""",
    )
    program = f"import os\nos.environ['OFF'] = {str(tmp_path / 'off')!r}\n{program}"
    command = [f"--data_dir={toy_shards}", f"--workdir={tmp_path / 'run'}", *RUN]
    with Workers(tmp_path, command, 2, program) as workers:
        workers.wait_for(tmp_path, "off")
        started = time.monotonic()
        assert workers.processes[0].wait(60) == 3
        assert time.monotonic() - started < 10
        line = workers.text(0).splitlines()[-1]
        assert "worker 1 of 2 (localhost:" in line and "its machine can no longer be reached" in line


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_worker_stops_all_with_the_state_saved(alone, toy_shards, tmp_path, asked):
    command = [f"--data_dir={toy_shards}", f"--workdir={tmp_path / 'run'}", *RUN]
    with Workers(tmp_path, command, 2, SLOW_STEPS) as workers:
        workers.wait_for(tmp_path / "run" / "resume", "state-000001-000000000.npz")
        workers.processes[asked].terminate()
        assert workers.codes(120) == [143, 143], workers.text(0) + workers.text(1)
        assert "SIGTERM: stopped and saved at epoch 2, step 1" in workers.text(0)
    assert difference(trained(tmp_path, toy_shards, 2), alone) < 1e-6


def test_time_limits_early_stopping_and_the_measured_micro_batch_are_those_of_worker_0(toy_shards, tmp_path):
    """A session ends by its time, one by that of the run, and one when no task improves any more."""
    words = ("--micro_batch=auto", "--learning_rate=1e-30")  # no task improves
    stopping = ("--early_stopping=category=1", "--early_stopping=authenticity=2")
    run = tmp_path / "run"
    trained(tmp_path, toy_shards, 2, *words, *stopping, "--epochs=0.001min", "--max_minutes=0.001")
    assert "--max_minutes: stopped and saved at epoch 1, step 1" in (tmp_path / "worker-0.log").read_text()
    trained(tmp_path, toy_shards, 2, *words, *stopping, "--epochs=0.001min")
    assert (document(run)["epoch"], document(run)["step"]) == (1, 0)
    (measured,) = json.loads((run / "micro_batch.json").read_text())
    assert "batch 26" in measured
    trained(tmp_path, toy_shards, 2, *words, *stopping, "--epochs=10min")
    assert document(run)["stopped"] == {"category": 2, "authenticity": 3}
    _, both, one = document(run)["history"]
    assert "category_loss" in both and "category_loss" not in one


def test_a_step_that_is_not_finite_in_one_part_is_skipped_by_all(toy_shards, tmp_path):
    program = PROGRAM.replace(
        "sys.exit(",
        """
import tensorflow as tf
from deepduel.training.trainer import MultiTaskTrainer
gradients = MultiTaskTrainer._gradients
def poisoned(self, rows, prepared):
    logits, sums = gradients(self, rows, prepared)
    if not self.team.leads:
        second = self.running[0].optimizer.iterations.value == 1
        sums = tf.nest.map_structure(lambda sum: sum * tf.where(second, float("nan"), 1.0), sums)
    return logits, sums
MultiTaskTrainer._gradients = poisoned
sys.exit(""",
    )
    trained(tmp_path, toy_shards, 2, "--epochs=1", program=program)
    listed = (tmp_path / "run" / "non_finite.csv").read_text().splitlines()
    assert len(listed) == 1 + 2 * 2  # for each task the two images of the second batch


def test_workers_with_other_flags_or_data_say_so_in_one_line(toy_shards, tmp_path):
    program = PROGRAM.replace(
        "sys.exit(", "sys.argv += ['--seed=1'] * ('--worker=1/2' in sys.argv)\nsys.exit("
    )
    command = [f"--data_dir={toy_shards}", f"--workdir={tmp_path / 'run'}", *RUN]
    with Workers(tmp_path, command, 2, program) as workers:
        assert workers.codes() == [1, 1]
        for index in range(2):
            line = workers.text(index).splitlines()[-1]
            assert "worker 1 differs from worker 0 in --seed: --seed=1 there, --seed=0" in line
    assert not (tmp_path / "run").exists()
