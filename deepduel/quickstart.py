"""Runs all steps on toy images: draw, convert, train, evaluate, predict.

Each step is one of the project's commands. Its command line is printed before
it runs, so that it can be repeated by hand.
"""

import csv
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import DataError
from tfrecords_tools.progress import duration

_MARK = ".quickstart"  # a file in the folder: what else is there may be replaced
_PREDICTIONS = "submission.csv"
FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output_dir",
    "quickstart",
    "Folder for images, shards and run; those of an earlier quickstart in it are replaced.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "flags_file", "quickstart", "Flagfile of the training: the name of a preset or a path.", flag_values=FLAGS
)
flags.DEFINE_integer("count", 3000, "Number of toy images to draw.", lower_bound=60, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Random seed of the toy images.", lower_bound=0, flag_values=FLAGS)


def main(options: flags.FlagValues) -> None:
    started = time.monotonic()
    root = pathlib.Path(options.output_dir)
    images, shards, run = (root / part for part in ("images", "shards", "run"))
    _remove_earlier(root, shards, run)  # toy_images replaces the images itself
    _run(
        "deepduel.toy_images",
        f"--output_dir={images}",
        f"--count={options.count}",
        f"--seed={options.seed}",
    )
    _run("tfrecords_tools.convert", f"--input_dir={images}", f"--output_dir={shards}")
    _run("deepduel.train", f"--flagfile={options.flags_file}", f"--data_dir={shards}", f"--workdir={run}")
    _run("deepduel.evaluate", f"--workdir={run}", f"--data_dir={shards}", "--split=validation")
    _run(
        "deepduel.predict",
        f"--workdir={run}",
        f"--images={images / 'test'}",
        f"--output={root / _PREDICTIONS}",
    )
    print(_summary(root, run, time.monotonic() - started))


def _remove_earlier(root: pathlib.Path, *folders: pathlib.Path) -> None:
    """Removes what an earlier quickstart made. Raises DataError where one of its names is taken."""
    mark = root / _MARK
    for path in (*folders, root / _PREDICTIONS):
        if path.exists() and not mark.exists():
            raise DataError(
                f"{path}: is there already, but not of a quickstart; remove it, or set another --output_dir"
            )
    root.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _run(module: str, *arguments: str) -> None:
    print(f"\n$ python -m {module} {shlex.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if code:
        raise DataError(f"{module} failed with exit code {code}; its message is above")


def _summary(root: pathlib.Path, run: pathlib.Path, seconds: float) -> str:
    metrics = json.loads((run / "evaluation" / "validation" / "metrics.json").read_text("utf-8"))
    with (run / "history.csv").open(newline="") as file:
        rates = sorted(float(row["images_per_second"]) for row in csv.DictReader(file))
    tasks = metrics["tasks"]
    evaluation = run / "evaluation" / "validation"
    tensorboard = pathlib.Path(sys.executable).parent / "tensorboard"
    accuracies = ", ".join(f"{task} {tasks[task]['overall']['accuracy']:.2%}" for task in tasks)
    return "\n".join(
        [
            f"\nDone in {duration(seconds)}.",
            f"  validation accuracy   {accuracies}",
            f"  training              {rates[len(rates) // 2]:,.0f} images/s (both tasks at once)",
            f"  report                {evaluation / 'report.html'}",
            f"  models                {', '.join(str(run / task / 'best.keras') for task in tasks)}",
            f"  predictions           {root / _PREDICTIONS}",
            f"  watch the training    {shlex.join([str(tensorboard), f'--logdir={run}/tensorboard'])}",
        ]
    )


def entry() -> int:
    """The command; returns its exit code."""
    return cli.run(main, FLAGS, name="deepduel.quickstart")


if __name__ == "__main__":
    sys.exit(entry())
