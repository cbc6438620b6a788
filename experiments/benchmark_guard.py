"""Tells whether this checkout is slower than another revision of it.

    python -m experiments.benchmark_guard --data_dir=SHARDS --against=main

Unpacks the other revision beside this one and measures both in turn (A B, B A, …), each in a new process:
five figures, in images per processor second, which a busy machine disturbs less than the clock. Exits with 1
when a figure's median ratio is below 0.95. Five rounds take about five minutes on two cores.
"""

import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tarfile
import tempfile

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError

_ROOT = pathlib.Path(__file__).parents[1]
_SLOWER = 0.95  # of the other revision's figure

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS, required=True)
flags.DEFINE_string("against", None, "Git revision to compare with.", flag_values=FLAGS, required=True)
flags.DEFINE_string("split", "train", "Split to read.", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "Measurements of each revision.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float("seconds", 2.0, "Length of one figure's measurement.", lower_bound=0.1, flag_values=FLAGS)


def main(options: flags.FlagValues) -> None:
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        _unpack(options.against, pathlib.Path(folder))
        ours: list[dict] = []
        theirs: list[dict] = []
        for number in range(options.rounds):
            sides = [(pathlib.Path(folder), theirs), (_ROOT, ours)]
            for root, figures in sides if number % 2 == 0 else sides[::-1]:
                figures.append(_measure(root, options))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    slower = compare(ours, theirs, options.against)
    if slower:
        raise DataError(f"slower than {options.against} by more than 5 %: {', '.join(slower)}")


def compare(ours: list[dict], theirs: list[dict], name: str) -> list[str]:
    """Prints a line per figure; returns the figures whose median ratio over the rounds is below 0.95."""
    print(f"{'images per processor second':28} {name:>12} {'here':>12}  ratio (lowest to highest)")
    slower = []
    for figure in ours[0]:
        ratios = [one[figure] / other[figure] for one, other in zip(ours, theirs, strict=True)]
        ratio = statistics.median(ratios)
        medians = (statistics.median(side[figure] for side in sides) for sides in (theirs, ours))
        rates = " ".join(f"{median:12,.0f}" for median in medians)
        print(f"{figure:28} {rates}  {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        if ratio < _SLOWER:
            slower.append(figure)
    return slower


def _unpack(revision: str, folder: pathlib.Path) -> None:
    archive = subprocess.run(
        ["git", "-C", str(_ROOT), "archive", revision, "deepduel", "tfrecords_tools"],
        capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        reason = archive.stderr.decode().strip()
        raise UsageError(f"--against={revision}: git has no such revision of this checkout ({reason})")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def _measure(root: pathlib.Path, options: flags.FlagValues) -> dict[str, float]:
    program = [sys.executable, "-P", str(_ROOT / "experiments" / "guard_figures.py")]
    done = subprocess.run(
        [*program, str(pathlib.Path(options.data_dir).resolve()), options.split, str(options.seconds)],
        env=os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise DataError(f"{root} cannot be measured:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def entry() -> int:
    return cli.run(main, FLAGS, name="experiments.benchmark_guard")


if __name__ == "__main__":
    sys.exit(entry())
