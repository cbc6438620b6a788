"""Reads, trains, predicts and converts in turn, in one process, and measures what each step leaves behind.

    python -m experiments.soak --output_dir=SOAK --minutes=30

A step makes its objects, uses them and drops them; then Python's garbage
collector runs, and the process's descriptors, threads, child processes and
memory are counted. They must not rise: the exit code is 1 when they do.

SOAK/soak.csv has a row for each step and SOAK/soak.png the curves. The
commands' own output is in SOAK/log.txt. Needs matplotlib (the extra
`benchmark`).
"""

import contextlib
import csv
import ctypes
import gc
import io
import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from types import ModuleType

import psutil
from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output_dir", None, "New folder for images and results.", flag_values=FLAGS, required=True
)
flags.DEFINE_float(
    "minutes", 30, "Minutes after which no new cycle begins.", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_integer("cycles", 100_000, "Number of cycles, at most.", lower_bound=4, flag_values=FLAGS)
flags.DEFINE_integer("count", 240, "Number of toy images.", lower_bound=60, flag_values=FLAGS)
flags.DEFINE_list(
    "steps",
    "random,sequential,ram,decoded,train,features,predict,predict_files,convert",
    "Steps of a cycle.",
    flag_values=FLAGS,
)

COUNTS = ("descriptors", "threads", "processes")
MEMORY = ("anonymous_mb", "shared_mb")  # of this process; shared: batches that decoding processes write
_REST_SECONDS = 5.0  # in which processes and threads that were told to end do so, at most
_MEMORY_RISE = 1.05
_FIGURES = ("images_per_second", *COUNTS, *MEMORY)


class Steps:
    """The steps, each a method that returns how many images it went through."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self._shards, self._run = str(root / "shards"), str(root / "run")

    def prepare(self, count: int) -> None:
        """Draws the images, converts them and trains the run with which to predict."""
        from deepduel import toy_images

        toy_images.write_folder(self._root / "images", count=count, size=32, seed=0)
        self._convert(self._shards)
        self._train(self._run)

    def random(self) -> int:
        return self._read()

    def sequential(self) -> int:
        return self._read(reader="sequential")

    def ram(self) -> int:
        return self._read(cache="ram")

    def decoded(self) -> int:
        return self._read(cache=f"decoded:{self._root / 'cache'}")

    def train(self) -> int:
        shutil.rmtree(self._root / "again", ignore_errors=True)
        return self._train(str(self._root / "again"))

    def features(self) -> int:
        """Trains a head on the stored features of a frozen backbone."""
        shutil.rmtree(self._root / "again", ignore_errors=True)
        words = (
            "--cache=features",
            "--views=1",
            f"--weights={self._run}/category/best.keras",
            "--fine_tune=none",
        )
        return self._train(str(self._root / "again"), *words)

    def predict(self) -> int:
        return self._predict(f"--images={self._shards}", "--split=train")

    def predict_files(self) -> int:
        return self._predict(f"--images={self._root / 'images' / 'train'}")

    def convert(self) -> int:
        folder = self._root / "converted"
        shutil.rmtree(folder, ignore_errors=True)
        return self._convert(str(folder))

    def _read(self, **options: str) -> int:
        from deepduel.decoding import worker_pool
        from deepduel.reading import pipeline

        train = pipeline.make_train(self._shards, batch_size=32, labels="category", threads=2, **options)
        pool = worker_pool.spent(2, worker_pool.STARTS_AFTER)  # as if much had been decoded
        done = sum(len(images) for images, _ in train.take(20))
        validation = pipeline.make_eval(self._shards, batch_size=32, labels="category", threads=2, **options)
        done += sum(len(images) for images, _, _ in validation)
        if pool is not None and options.get("cache") != "ram":
            pool.ready.wait(60)
            done += sum(len(images) for images, _ in train.skip(20).take(20))
        return done

    def _convert(self, folder: str) -> int:
        from tfrecords_tools import convert
        from tfrecords_tools.format import manifest

        run_command(
            convert, f"--input_dir={self._root / 'images'}", f"--output_dir={folder}", "--num_shards=2"
        )
        return sum(split.records for split in manifest.load(folder).splits.values())

    def _train(self, workdir: str, *words: str) -> int:
        from deepduel import train

        run_command(
            train, f"--data_dir={self._shards}", f"--workdir={workdir}", "--tasks=category",
            "--backbone=small_cnn", "--head=avg", "--image_size=16", "--augmentation=none", "--batch_size=32",
            "--epochs=2", "--micro_batch=32", *words,
        )  # fmt: skip
        with pathlib.Path(workdir, "history.csv").open(newline="") as file:
            epochs = len(list(csv.DictReader(file)))
        return epochs * self._records("train")

    def _predict(self, *words: str) -> int:
        from deepduel import predict

        output = self._root / "predictions.csv"
        run_command(predict, f"--workdir={self._run}", f"--output={output}", *words)
        with output.open(newline="") as file:
            return len(list(csv.DictReader(file)))

    def _records(self, split: str) -> int:
        from tfrecords_tools.format import manifest

        return manifest.load(self._shards).splits[split].records


def run_command(module: ModuleType, *words: str) -> None:
    """Runs one of the project's commands in this process."""
    _forget(module.FLAGS)
    code = cli.run(module.main, module.FLAGS, name=module.__name__, argv=[module.__name__, *words])
    if code:
        raise DataError(f"{module.__name__} {' '.join(words)}: exit code {code}; see log.txt")


def _forget(flag_values: flags.FlagValues) -> None:
    flag_values.unparse_flags()
    for name in flag_values:
        flag_values[name].unparse()


def left_behind(process: psutil.Process, before: dict[str, float]) -> dict[str, float]:
    """Counts what the process has; where that is more than before, waits for what is about to end."""
    gc.collect()
    end = time.monotonic() + _REST_SECONDS
    while True:
        counts = counted(process)
        if time.monotonic() > end or all(counts[name] <= before[name] for name in COUNTS):
            return counts
        time.sleep(0.02)


def counted(process: psutil.Process) -> dict[str, float]:
    """The figures of this process, after malloc has given free memory back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    status = pathlib.Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "descriptors": process.num_fds(),
        "threads": int(fields["Threads"]),
        "processes": len(process.children()),
        "anonymous_mb": int(fields["RssAnon"].split()[0]) / 1024,
        "shared_mb": int(fields["RssShmem"].split()[0]) / 1024,
    }


def main(options: flags.FlagValues) -> None:
    root = pathlib.Path(options.output_dir)
    if root.exists():
        raise UsageError(f"--output_dir={root} exists already; choose a new folder")
    unknown = [name for name in options.steps if name.startswith("_") or not hasattr(Steps, name)]
    if unknown or not options.steps:
        raise UsageError(f"--steps: there is no step {', '.join(unknown) or 'given'}; see --help")
    root.mkdir(parents=True)
    steps = Steps(root)
    calls = {name: getattr(steps, name) for name in options.steps}
    with (
        (root / "log.txt").open("w") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        steps.prepare(options.count)
    rows = measured(calls, root, minutes=options.minutes, cycles=options.cycles)
    plot(rows, root / "soak.png")
    rises = summary(rows)
    if rises:
        raise DataError(
            f"after {rows[-1]['cycle'] + 1:.0f} cycles, {', '.join(rises)} have risen; see {root}"
        )


def measured(
    calls: dict[str, Callable[[], int]], root: pathlib.Path, *, minutes: float, cycles: int
) -> list[dict]:
    """Runs the steps in turn; writes and returns a row for each."""
    process, start = psutil.Process(), time.monotonic()
    rows: list[dict] = []
    with (root / "soak.csv").open("w", newline="") as table, (root / "log.txt").open("a") as log:
        writer = csv.DictWriter(table, ["seconds", "cycle", "step", *_FIGURES])
        writer.writeheader()
        before = counted(process)
        for cycle in range(cycles):
            for name, call in calls.items():
                began = time.monotonic()
                with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                    images = call()
                rate = images / (time.monotonic() - began)
                counts = left_behind(process, before)
                rows.append(
                    {"seconds": time.monotonic() - start, "cycle": cycle, "step": name}
                    | {"images_per_second": rate, **counts}
                )
                writer.writerow(rows[-1])
                if not cycle:  # what the first cycle starts for good, such as multiprocessing's own process
                    before = {name: max(count, before[name]) for name, count in counts.items()}
            table.flush()
            if time.monotonic() - start > 60 * minutes:
                break
    return rows


def summary(rows: list[dict]) -> list[str]:
    """Prints each figure's median in the second and the last quarter of the cycles; returns those that rose.

    The first quarter is left out: TensorFlow's and Python's caches fill.
    """
    cycles = rows[-1]["cycle"] + 1
    quarter = max(cycles // 4, 1)
    early = [row for row in rows if quarter <= row["cycle"] < 2 * quarter]
    late = [row for row in rows if row["cycle"] >= cycles - quarter]
    print(f"{cycles} cycles of {len(rows) // cycles} steps in {rows[-1]['seconds'] / 60:.1f} min")
    print(f"{'median of':<22}{'2nd quarter':>14}{'last quarter':>14}")
    rises = []
    for name in (*COUNTS, *MEMORY):
        first, last = (statistics.median(row[name] for row in part) for part in (early, late))
        print(f"{name:<22}{first:>14,.0f}{last:>14,.0f}")
        if last > first * (_MEMORY_RISE if name in MEMORY else 1):
            rises.append(name)
    for step in dict.fromkeys(row["step"] for row in rows):
        rates = [[row["images_per_second"] for row in part if row["step"] == step] for part in (early, late)]
        first, last = map(statistics.median, rates)
        print(f"{step + ', images/s':<22}{first:>14,.0f}{last:>14,.0f}")
    return rises


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """Curves of memory, counts and throughput over the minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, counts, rates) = pyplot.subplots(3, 1, figsize=(8, 9), sharex=True)
    minutes = [row["seconds"] / 60 for row in rows]
    for name in MEMORY:
        memory.plot(minutes, [row[name] for row in rows], linewidth=1, label=name.removesuffix("_mb"))
    memory.set_ylabel("memory after each step, MB")
    for name in COUNTS:
        counts.plot(minutes, [row[name] for row in rows], linewidth=1, label=name)
    counts.set_ylabel("after each step")
    for step in dict.fromkeys(row["step"] for row in rows):
        of_step = [row for row in rows if row["step"] == step]
        rate = [row["images_per_second"] for row in of_step]
        rates.plot([row["seconds"] / 60 for row in of_step], rate, linewidth=1, label=step)
    rates.set_ylabel("images/s of each step")
    rates.set_yscale("log")
    rates.set_xlabel("minutes")
    for axes in (memory, counts, rates):
        axes.set_ylim(bottom=None if axes is rates else 0)
        axes.legend(fontsize="small", ncols=3)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    pyplot.close(figure)
    path.write_bytes(stream.getvalue())


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.soak"))
