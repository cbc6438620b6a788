"""Compares what `profile_input --plan` predicts with what data workers on this machine deliver.

    python -m experiments.check_capacity --data_dir=SHARDS

Each data worker decodes with one process. Processor seconds per image hardly depend on other programs;
images/s need a core per data worker and one for the reader.
"""

import statistics
import subprocess
import sys
import time

import numpy as np
import psutil
from absl import flags

from tfrecords_tools import cli

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS, required=True)
flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("size", 224, "Side of the images in pixels.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("batches", 40, "Batches per measurement.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rounds", 3, "Measurements, of which medians are shown.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "port", 5050, "First of the ports that the data workers use.", lower_bound=1, flag_values=FLAGS
)

_WARM = 4  # batches before each measurement


def main(options: flags.FlagValues) -> None:
    """Prints a table."""
    cli.quiet_tensorflow()
    from deepduel.reading import capacity

    print(f"{'':<16}{'predicted':>22}{'measured':>22}{'error':>8}")
    images = np.zeros((options.batch_size, options.size, options.size, 3), np.uint8)
    for count in (1, 2):
        rows = []
        for _ in range(options.rounds):
            decode, _ = _measure(options, 0)
            send, receive = capacity.connection_costs([images], 1.0)
            costs = capacity.Costs(decode, send, receive, 0, images[0].nbytes)
            rows.append((decode + send, capacity.predicted(costs, cores=1, data_workers=count)))
            rows[-1] += _measure(options, count)
        cost, rate, real_cost, real_rate = (statistics.median(column) for column in zip(*rows, strict=True))
        name = f"{count} data worker{'s' * (count > 1)}"
        cells = f"{cost * 1e3:>13.3f} ms/image{real_cost * 1e3:>13.3f} ms/image"
        print(f"{name:<16}{cells}{cost / real_cost - 1:>8.1%}")
        print(
            f"{'':<16}{rate:>13,.0f} images/s{real_rate:>13,.0f} images/s{rate / real_rate - 1:>8.1%}",
            flush=True,
        )


def _measure(options: flags.FlagValues, count: int) -> tuple[float, float]:
    """(processor seconds per image of the data workers, images/s); of this process without any."""
    from deepduel.decoding.split import Split
    from deepduel.reading import order, pipeline
    from deepduel.reading.options import ReadOptions

    workers = [_start(options.port + number) for number in range(count)]
    try:
        reading = ReadOptions(
            options.batch_size,
            (options.size, options.size),
            threads=1,
            data_workers=tuple(f"127.0.0.1:{options.port + number}" for number in range(count)),
        )
        batches = iter(pipeline.train_batches(Split(options.data_dir, "train"), reading, order.Position()))
        for _ in range(_WARM):
            next(batches)
        processes = [psutil.Process(worker.pid) for worker in workers] or [psutil.Process()]
        used, start, images = _seconds(processes), time.perf_counter(), 0
        for _ in range(options.batches):
            images += len(next(batches)["images"])
        return (_seconds(processes) - used) / images, images / (time.perf_counter() - start)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _start(port: int) -> subprocess.Popen:
    words = [sys.executable, "-m", "deepduel.data_service", f"--port={port}", "--threads=1"]
    worker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert worker.stdout is not None
    worker.stdout.readline()  # once it listens
    return worker


def _seconds(processes: list[psutil.Process]) -> float:
    """Processor seconds of processes and of those that they started."""
    whole = [each for process in processes for each in (process, *process.children(recursive=True))]
    return sum(sum(each.cpu_times()[:2]) for each in whole)


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.check_capacity"))
