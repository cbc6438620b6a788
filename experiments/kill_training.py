"""Kills a training run with SIGKILL at random instants, starts it again until it is done, and compares.

    python -m experiments.kill_training --data_dir=SHARDS --scratch=FOLDER --kills=20

The run that was killed must end with the same models, history and metrics as one that was left alone, bit for
bit (on a CPU, in float32), and TensorBoard must show no point twice. Exit code 1 when it does not.
"""

import csv
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS, required=True)
flags.DEFINE_string("scratch", None, "Folder for both runs; a new one.", flag_values=FLAGS, required=True)
flags.DEFINE_integer("kills", 20, "Number of kills.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Random seed for the instants of the kills.", flag_values=FLAGS)
flags.DEFINE_string(
    "flags",
    "--backbone=small_cnn --head=avg,dropout:0.5 --image_size=16 --batch_size=64 --epochs=4 "
    "--save_every=2steps --optimizer=adamw --schedule=cosine --warmup=0.5epochs --ema=0.9 "
    "--label_smoothing=0.1",
    "Flags of the run, separated by spaces.",
    flag_values=FLAGS,
)
TIMINGS = ("seconds", "images_per_second", "input_wait_share")


def main(options: flags.FlagValues) -> None:
    scratch = pathlib.Path(options.scratch)
    if scratch.exists():
        raise UsageError(f"--scratch={scratch} exists already")
    words = options.flags.split()
    whole, killed = scratch / "whole", scratch / "killed"
    started = time.monotonic()
    _run(options.data_dir, whole, words).communicate()
    seconds = time.monotonic() - started
    print(f"uninterrupted: {seconds:.0f} s", flush=True)
    moments = random.Random(options.seed)
    kills = 0
    while kills < options.kills:
        process = _run(options.data_dir, killed, words)
        try:
            process.wait(moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            states = sorted(path.name for path in killed.glob("resume/state-*"))
            print(f"killed {kills} times, newest state {states[-1] if states else 'none'}", flush=True)
            continue
        _finished(process)
        kills = _again(whole, killed, kills)
    process = _run(options.data_dir, killed, words)
    process.wait()
    _finished(process)
    _compare(whole, killed)
    print(f"{kills} kills: models, history and metrics are those of the uninterrupted run, bit for bit")


def _again(whole: pathlib.Path, killed: pathlib.Path, kills: int) -> int:
    """A run that was done before all kills were: compared, and begun anew."""
    _compare(whole, killed)
    shutil.rmtree(killed)
    return kills


def _run(data_dir: str, workdir: pathlib.Path, words: list[str]) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "deepduel.train",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finished(process: subprocess.Popen) -> None:
    if process.returncode:
        raise DataError(f"training ended with exit code {process.returncode}: {process.stderr.read()[-800:]}")


def _compare(whole: pathlib.Path, killed: pathlib.Path) -> None:
    cli.quiet_tensorflow()
    import keras
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    models = sorted(path.relative_to(whole) for path in whole.glob("*/epoch-*.keras"))
    if models != sorted(path.relative_to(killed) for path in killed.glob("*/epoch-*.keras")):
        raise DataError("the runs do not have the same models")
    for path in models:
        one, other = (keras.models.load_model(run / path).get_weights() for run in (whole, killed))
        if not all((a == b).all() for a, b in zip(one, other, strict=True)):
            raise DataError(f"{path}: the weights differ")
    if _history(whole) != _history(killed):
        raise DataError("history.csv differs")
    events = EventAccumulator(str(killed / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    for tag in events.Tags()["tensors"]:
        steps = [point.step for point in events.Tensors(tag)]
        if len(set(steps)) < len(steps):
            raise DataError(f"TensorBoard shows points of {tag} twice: {steps}")


def _history(run: pathlib.Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.kill_training"))
