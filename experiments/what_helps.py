"""Trains rows of flagfiles on the same data, each with several seeds, and writes a table of what helps.

    python -m experiments.what_helps --data_dir=SHARDS --runs_dir=RUNS

A row is a flagfile in --rows, read after `base.flags` there, so it holds only what the row is about:

    # Title in the table
    # weights from ROW      (optional) start from the backbone that ROW trained with the same seed;
                            ROW is then trained only, and not in the table
    --flags=of deepduel.train

Every row runs as a user would run it, by deepduel.train and deepduel.evaluate on the validation split,
on one core and one thread, seed 0 of all rows first. What is finished is kept: the same command goes on
where it was stopped. The model of the last epoch counts, so nothing is chosen by what is reported.

    RUNS/ROW/seed-0/         the run, as deepduel.train leaves it
    RUNS/ROW/seed-0.log      what the commands printed
    RUNS/ROW/seed-0.json     the result, written last
"""

import os
import pathlib
import queue
import signal
import sys
import threading

from absl import flags

from experiments import what_helps_table
from experiments.what_helps_runs import BASE, Runner, read_rows
from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError

HERE = pathlib.Path(__file__).parent

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS, required=True)
flags.DEFINE_string("runs_dir", None, "Folder for runs and results.", flag_values=FLAGS, required=True)
flags.DEFINE_string(
    "rows", str(HERE / "what_helps"), "Folder of flagfiles: base.flags and one per row.", flag_values=FLAGS
)
flags.DEFINE_list("only", None, "Names of the rows to train; default: all.", flag_values=FLAGS)
flags.DEFINE_integer("seeds", 3, "Trainings of each row.", lower_bound=2, flag_values=FLAGS)
flags.DEFINE_integer(
    "jobs", 2, "Trainings at a time, each on a core of its own; 0 trains nothing and writes the table of the "
    "existing results.", lower_bound=0, flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer(
    "robustness_images", 1000, "Validation images to damage; 0: all.", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_string(
    "readme", str(HERE / "README.md"), "Markdown file that gets the table, between <!-- NAME --> and "
    "<!-- /NAME -->, where NAME is that of the folder --rows.", flag_values=FLAGS)  # fmt: skip


def main(options: flags.FlagValues) -> None:
    rows = read_rows(pathlib.Path(options.rows))
    sources = {row.weights_from for row in rows.values()}
    shown = {name: row for name, row in rows.items() if name not in sources}
    for name in options.only or ():
        if name not in shown:
            raise UsageError(f"--only={name}: must be of {', '.join(shown)}")
    cores = sorted(os.sched_getaffinity(0))
    if options.jobs > len(cores):
        raise UsageError(f"--jobs={options.jobs}: there are {len(cores)} cores, and each job takes one")
    marker, readme = pathlib.Path(options.rows).name, pathlib.Path(options.readme)
    what_helps_table.check(readme, marker)
    runner = Runner(pathlib.Path(options.runs_dir), options.data_dir, rows, options.robustness_images)
    everything = [(name, seed) for seed in range(options.seeds) for name in shown]
    if options.jobs:
        chosen = [(name, seed) for name, seed in everything if not options.only or name in options.only]
        _run(runner, [job for job in chosen if runner.finished(*job) is None], cores[: options.jobs])
    results = [result for job in everything if (result := runner.finished(*job)) is not None]
    titles = {name: row.title for name, row in shown.items()}
    table = what_helps_table.render(results, titles, seeds=options.seeds, base=BASE)
    what_helps_table.publish(readme, marker, table)
    print(table)


def _run(runner: Runner, jobs: list[tuple[str, int]], cores: list[int]) -> None:
    """Does the (row, seed)s, one at a time on each core; the first that fails ends them all."""
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[BaseException] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop what was started
    threads = [
        threading.Thread(target=_work, args=(runner, waiting, core, failures), daemon=True) for core in cores
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        runner.stop()
    if failures:
        raise failures[0]


def _work(runner: Runner, waiting: queue.SimpleQueue, core: int, failures: list[BaseException]) -> None:
    os.sched_setaffinity(0, {core})  # of this thread, and so of the processes that it starts
    try:
        while not failures:
            name, seed = waiting.get_nowait()
            result = runner.result(name, seed)
            print(
                f"{name}, seed {seed}: accuracy {result['accuracy']:.2%}; {waiting.qsize()} to begin",
                flush=True,
            )
    except queue.Empty:
        pass
    except BaseException as error:
        failures.append(error)
        runner.stop()


def entry() -> int:
    return cli.run(main, FLAGS, name="experiments.what_helps")


if __name__ == "__main__":
    sys.exit(entry())
