"""What a data set of a million records costs: to open, to the first batch, to go on in, to keep in memory.

    python -m experiments.benchmark_scale --data_dir=SHARDS --output=RESULT.json

The million records are hard links to a shard of SHARDS' images (see `synthetic_shards`), so the same bytes
are read however many records there are. Every figure is the median of --rounds fresh processes, taken
in turn; memory is the growth of a process' resident memory over what it had once all was imported and
TensorFlow had started. Files are read from the page cache.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from absl import flags

from experiments import benchmark_report, synthetic_shards
from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.progress import Progress

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Folder of shards to repeat.", flag_values=FLAGS)
flags.DEFINE_string("split", "train", "Split to repeat.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "JSON file for the results.", flag_values=FLAGS)
flags.DEFINE_integer("records", 1_000_000, "Records of the large data set.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("growth", 100, "How many times smaller the small data set is.", lower_bound=1,
                     flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer("shards", 100, "Shards of the large data set.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("many_shards", 10_000, "Shards of a third data set, which is only opened.",
                     lower_bound=1, flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rounds", 3, "Measurements of each figure, each in a new process.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_float(
    "seconds", 5, "Seconds of reading for throughput and memory.", lower_bound=0.1, flag_values=FLAGS
)
flags.DEFINE_string(
    "scratch_dir", None, "Folder for links to the shards; by default $TMPDIR.", flag_values=FLAGS
)
flags.DEFINE_string("job", "", "Internal: one measurement, as JSON.", flag_values=FLAGS)

READERS = ("random", "sequential")


def main(options: flags.FlagValues) -> None:
    if options.job:
        print(json.dumps(measure(**json.loads(options.job))))
        return
    for name in ("data_dir", "output"):
        if options[name].value is None:
            raise UsageError(f"--{name} is missing")
    if options.records % (options.shards * options.growth) or options.records % options.many_shards:
        raise UsageError("--records must be a multiple of --shards times --growth, and of --many_shards")
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.scratch_dir) as scratch:
        for runs in _measure_all(options, _folders(options, pathlib.Path(scratch))):
            document = {"machine": benchmark_report.machine(), "command": sys.argv[1:], "runs": runs,
                        "figures": figures(runs)}  # fmt: skip
            pathlib.Path(options.output).write_text(json.dumps(document, indent=1) + "\n")
    host = document["machine"]
    print(f"{host['processor']}, {host['cores']} cores; {options.records:,} records")
    for name, (median, low, high) in document["figures"].items():
        print(f"{name:<66}{median:>12,.4g}  ({low:,.4g} - {high:,.4g})")


def _folders(options: flags.FlagValues, scratch: pathlib.Path) -> dict[str, str]:
    from deepduel.decoding.split import Split

    source = Split(options.data_dir, options.split)
    per_shard = options.records // options.shards
    sizes = {
        "large": (options.records, per_shard),
        "small": (options.records // options.growth, min(per_shard, options.records // options.growth)),
        "many": (options.records, options.records // options.many_shards),
    }
    for name, (records, each) in sizes.items():
        synthetic_shards.write(source, scratch / name, records=records, per_shard=each)
    return {name: str(scratch / name) for name in sizes}


def _measure_all(options: flags.FlagValues, folders: dict[str, str]) -> Iterator[list[dict]]:
    """The runs so far, after each: who is stopped keeps what is measured."""
    steps = options.records // options.batch_size
    jobs = [{"data": "many", "reader": "random", "step": 0, "seconds": 0}]
    for reader in READERS:
        jobs += [{"data": data, "reader": reader, "step": 0, "seconds": options.seconds}
                 for data in ("small", "large")]  # fmt: skip
        jobs += [{"data": "large", "reader": reader, "step": steps * 9 // 10, "seconds": 0}]
    jobs = [job | {"round": turn} for turn in range(options.rounds) for job in jobs]
    runs = []
    with Progress("measuring", total=len(jobs), unit="runs") as bar:
        for number, job in enumerate(jobs):
            bar.update(number)
            arguments = job | {"data_dir": folders[job["data"]], "batch_size": options.batch_size}
            for name in ("data", "round"):
                arguments.pop(name)
            command = [sys.executable, "-m", "experiments.benchmark_scale", f"--job={json.dumps(arguments)}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise DataError(f"{job}: ended with code {done.returncode}")
            runs.append(job | json.loads(done.stdout.splitlines()[-1]))
            yield runs
        bar.update(len(jobs))


def measure(*, data_dir: str, reader: str, batch_size: int, step: int, seconds: float) -> dict:
    """Opens the data set, takes the first batch from `step` on, then batches for `seconds`."""
    cli.quiet_tensorflow()
    from deepduel import order
    from deepduel.decoding.split import Split
    from deepduel.reading import pipeline

    before = _resident()
    start = time.perf_counter()
    split = Split(data_dir, "train")
    opened = time.perf_counter()
    measured = {"open_seconds": opened - start, "open_bytes": _resident() - before}
    reading = pipeline.ReadOptions(batch_size, reader=reader)
    batches = iter(pipeline.train_batches(split, reading, order.Position(0, 0, step)))
    pixels = next(batches)["images"]
    measured["first_batch_seconds"] = time.perf_counter() - opened
    measured["batch_bytes"] = pixels.numpy().nbytes
    del pixels  # a consumer that keeps a batch would keep its buffer from being used again
    if not seconds:
        return measured
    resident, images = [], 0
    warm = time.perf_counter() + 2
    while time.perf_counter() < warm:
        next(batches)
    start = sampled = time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        images += len(next(batches)["images"])
        if now - sampled > 0.1:
            sampled = now
            resident.append(_resident() - before)
    measured["images_per_second"] = images / (time.perf_counter() - start)
    third = max(len(resident) // 3, 1)
    return measured | {
        "resident_bytes": max(resident),
        "resident_growth_bytes": statistics.median(resident[-third:]) - statistics.median(resident[:third]),
    }


def figures(runs: list[dict]) -> dict[str, tuple[float, float, float]]:
    """(median, lowest, highest) by name; ratios are taken within each round."""

    def of(name, data, reader="random", later=False, scale=1.0):
        chosen = data, reader, later
        own = [run for run in runs if (run["data"], run["reader"], run["step"] > 0) == chosen]
        return [run[name] * scale for run in own if name in run]

    figures = {
        "opening, s": of("open_seconds", "large"),
        "opening, MB": of("open_bytes", "large", scale=1e-6),
        "opening, in many shards, s": of("open_seconds", "many"),
        "opening, in many shards, MB": of("open_bytes", "many", scale=1e-6),
    }
    for reader in READERS:
        small, large = (of("images_per_second", data, reader) for data in ("small", "large"))
        begun, later = (of("first_batch_seconds", "large", reader, later) for later in (False, True))
        batch = of("batch_bytes", "large", reader)
        allowed = [8 * size * 1e-6 + 200 for size in batch]
        figures |= {
            f"{reader}: first batch after opening, s": begun,
            f"{reader}: the same from nine tenths of the epoch on, s": later,
            f"{reader}: images/s": large,
            f"{reader}: images/s over those of the small data set": [
                a / b
                for a, b in zip(large, small, strict=False)  # the last round may be under way
            ],
            f"{reader}: resident memory while reading, MB": of("resident_bytes", "large", reader, scale=1e-6),
            f"{reader}: what 8 batches and 200 MB are, MB": allowed,
            f"{reader}: growth of it, first to last third, MB": of(
                "resident_growth_bytes", "large", reader, scale=1e-6
            ),
        }
    return {
        name: (statistics.median(values), min(values), max(values))
        for name, values in figures.items()
        if values
    }


def _resident() -> int:
    """Bytes of this process in memory now (Linux)."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.benchmark_scale"))
