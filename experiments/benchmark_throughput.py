"""Measures how fast this package and everyone else make batches out of the same images.

    python -m experiments.benchmark_throughput --images=IMAGES --data_dir=SHARDS --output=RESULT.json

Every contender runs in a fresh process of its own, on the CPU, one after the other: A B C A B C.
Printed: images/s as median (lowest - highest) over the rounds, ratios within each round, machine
and versions. RESULT.json holds everything, RESULT.png is a bar chart.

Who is not installed is reported and left out. FFCV, DALI and PyTorch may have environments of
their own: --peer_python=ffcv=/path/bin/python,dali=/path/bin/python,torch=/path/bin/python

About 15 minutes with all contenders; a first look in 2: --rounds=1 --seconds=2 --contenders='ours*,bare*'
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from absl import flags

from experiments import benchmark_contenders as contenders
from experiments.benchmark_job import Job
from tfrecords_tools import atomic, cli, progress
from tfrecords_tools.errors import DataError, UsageError

PEERS = ("ffcv", "dali", "torch")
CACHES = ("warm", "cold")
_GRACE_SECONDS = 300  # on top of the measurement, for imports, compilation and slow batches
_HERE = pathlib.Path(__file__).resolve().parent

FLAGS = flags.FlagValues()
flags.DEFINE_string("images", None, "Folder of images that was converted.", flag_values=FLAGS, required=True)
flags.DEFINE_string("data_dir", None, "Folder of shards made from it.", flag_values=FLAGS, required=True)
flags.DEFINE_string(
    "output",
    None,
    "JSON file for the results; the chart is written beside it.",
    flag_values=FLAGS,
    required=True,
)
flags.DEFINE_string("split", "train", "Split to read.", flag_values=FLAGS)
flags.DEFINE_list("contenders", "*", "Names or patterns such as ours*,bare*,ffcv_jpg.", flag_values=FLAGS)
flags.DEFINE_list(
    "peer_python",
    "",
    f"PEER=INTERPRETER for any of {', '.join(PEERS)}; default: this one.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("rounds", 3, "Measurements of each contender.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float("seconds", 5.0, "Length of one measurement.", lower_bound=0.1, flag_values=FLAGS)
flags.DEFINE_float(
    "warmup_seconds",
    2.0,
    "Length of the warm-up before each measurement.",
    lower_bound=0.0,
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "threads", [], "Numbers of cores to measure with, such as 1,2; by default all cores.", flag_values=FLAGS
)
flags.DEFINE_list(
    "cache", "warm", "State of the page cache: warm, or cold (emptied first, and one epoch is measured).",
    flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "image_size", 224, "Side of augmented images in pixels.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_string("scratch_dir", None, "Folder for FFCV's files; by default $TMPDIR.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the measurements are taken; flags of the same names say what each means."""

    contenders: tuple[contenders.Contender, ...]
    pythons: dict[str, str]
    threads: tuple[int, ...]
    caches: tuple[str, ...]
    rounds: int
    seconds: float
    warmup_seconds: float
    batch_size: int
    image_size: int

    def __post_init__(self):
        cores = len(os.sched_getaffinity(0))
        for count in self.threads:
            if not 1 <= count <= cores:
                raise UsageError(f"--threads counts cores, 1 to {cores} on this machine, not {count}")
        for cache in self.caches:
            if cache not in CACHES:
                raise UsageError(f"--cache takes {' and '.join(CACHES)}, not {cache!r}")
        for peer, python in self.pythons.items():
            if peer not in PEERS:
                raise UsageError(f"--peer_python knows {', '.join(PEERS)}, not {peer!r}")
            if not os.access(python, os.X_OK):
                raise UsageError(f"--peer_python={peer}={python}: there is no such program")


def main(options: flags.FlagValues) -> None:
    settings = _settings(options)
    output = pathlib.Path(options.output)
    if output.suffix != ".json" or not output.absolute().parent.is_dir():
        raise UsageError(f"--output={output}: give a name ending in .json, in a folder that exists")
    if options.scratch_dir is not None and not pathlib.Path(options.scratch_dir).is_dir():
        raise UsageError(f"--scratch_dir={options.scratch_dir}: there is no such folder")
    from experiments import benchmark_report as report  # Matplotlib: not before the flags are known good

    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.scratch_dir) as scratch:
        job = dataset(options, scratch)
        document = report.document(job, settings, measure_all(job, settings, pathlib.Path(scratch)))
    document["images"] |= {"folder": options.images, "data_dir": options.data_dir}
    chart = output.with_suffix(".png")
    with atomic.published(output) as file:
        file.write(json.dumps(document, indent=1) + "\n")
    with atomic.published(chart, binary=True) as file:
        file.write(report.chart(document))
    print(report.text(document))
    print(f"\n{output}, {chart}")
    failed = [entry for entry in document["contenders"] if entry["status"] == "failed"]
    if failed:
        what = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in failed)
        raise DataError(f"{len(failed)} of the contenders failed: {what}")


def _settings(options: flags.FlagValues) -> Settings:
    try:
        chosen = contenders.select(options.contenders)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for count in options.threads:
        if not count.isdecimal():
            raise UsageError(f"--threads takes numbers of cores such as 1,2, not {count!r}")
    threads = tuple(int(count) for count in options.threads)
    pythons = dict(entry.partition("=")[::2] for entry in options.peer_python if entry)
    return Settings(
        chosen, pythons, threads or (len(os.sched_getaffinity(0)),), tuple(options.cache), options.rounds,
        options.seconds, options.warmup_seconds, options.batch_size, options.image_size,
    )  # fmt: skip


def dataset(options: flags.FlagValues, scratch: str) -> Job:
    """The images of the split as files, as links in one folder per label, and as shards.

    Raises:
      DataError: the two folders do not hold the same images, or not JPEG images of one size.
      UsageError: no such folder or split.
    """
    from deepduel.decoding.split import Split
    from tfrecords_tools import records

    if not pathlib.Path(options.images).is_dir():
        raise DataError(f"{options.images}: there is no such folder; --images names the folder of images")
    split = Split(options.data_dir, options.split)
    if not len(split):
        raise DataError(f"{options.data_dir}: split {options.split!r} holds no image to measure with")
    if split.one_size is None:
        raise DataError(
            f"{options.data_dir}: images of {len(split.manifest.image_sizes)} sizes, but the contenders are "
            "compared on one; convert again with --encoding=jpeg --image_size=N"
        )
    jpeg = records.ENCODINGS.index("jpeg")
    if (others := int((split.encoding != jpeg).sum())) > 0:
        raise DataError(
            f"{options.data_dir}: {others} of {len(split)} images are no JPEGs, but JPEG decoders are "
            "compared; convert again with --encoding=jpeg"
        )
    axis = next(iter(split.labels), None)
    labels = split.labels[axis].tolist() if axis else [-1] * len(split)
    files = []
    for record in range(len(split)):
        path = os.path.join(os.path.abspath(options.images), os.fsdecode(split.key(record)))  # noqa: PTH118, PTH100, pathlib is slow for all images
        if not os.path.isfile(path):  # noqa: PTH113, likewise
            raise DataError(
                f"{path}: missing, but {options.data_dir} was made from it; give with --images the folder "
                "that was converted"
            )
        files.append(path)
        # flow_from_directory and its kin want a folder per label, whatever the layout of the images.
        folder = pathlib.Path(scratch, "files", str(labels[record]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{record:08d}.jpg").symlink_to(path)
    links = str(pathlib.Path(scratch, "files"))
    shards = [str((split.data_dir / shard.file).resolve()) for shard in split.shards]
    total = sum(len(split.image(record)) for record in range(len(split)))
    return Job(
        contender="", prepare=False, data_dir=str(split.data_dir.resolve()), split=options.split,
        shards=shards, files=files, folder=links, labels=labels, scratch=scratch,
        size=split.one_size, target_size=options.image_size, batch_size=options.batch_size, threads=1,
        seconds=options.seconds, warmup_seconds=options.warmup_seconds, cold=False, bytes=total,
    )  # fmt: skip


def measure_all(job: Job, settings: Settings, scratch: pathlib.Path) -> list[dict]:
    """Runs every contender in turn; one dict per run: contender, threads, cache, round, and its answer."""
    workspace = scratch / "packages"
    workspace.mkdir()
    for package in ("experiments", "deepduel", "tfrecords_tools"):
        (workspace / package).symlink_to(_HERE.parent / package)
    runs, out = [], set()
    plan = list(_plan(settings))
    with progress.Progress("measuring", total=len(plan), unit="runs") as bar:
        for number, (contender, threads, cache, turn) in enumerate(plan):
            if contender.name in out:
                continue
            bar.update(number, contender.title)
            run_job = dataclasses.replace(
                job, contender=contender.name, threads=threads, cold=cache == "cold", prepare=turn is None
            )
            answer = run(run_job, _python(contender, settings), workspace)
            if answer.keys() & {"missing", "failed"}:
                out.add(contender.name)
            runs.append(
                {"contender": contender.name, "threads": threads, "cache": cache, "round": turn} | answer
            )
        bar.update(len(plan))
    return runs


def _plan(settings: Settings) -> Iterator[tuple[contenders.Contender, int, str, int | None]]:
    """(contender, threads, cache, round) in their order; round None prepares."""
    for contender in settings.contenders:
        if contender.prepare:
            yield contender, max(settings.threads), "warm", None
    for turn in range(settings.rounds):
        for cache in settings.caches:
            for threads in settings.threads:
                for contender in settings.contenders:
                    from_memory = cache == "cold" and contender.reads is None
                    again = contender.single and threads != max(settings.threads)
                    if not from_memory and not again:
                        yield contender, threads, cache, turn


def run(job: Job, python: str, workspace: pathlib.Path) -> dict:
    """One contender in a process of its own: its answer, {"missing": […]} or {"failed": reason}."""
    job_file, answer = workspace.parent / "job.json", workspace.parent / "answer.json"
    job_file.write_text(json.dumps(dataclasses.asdict(job)))
    answer.unlink(missing_ok=True)
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "-1",  # the host is measured
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": str(job.threads),
        "PYTHONPATH": "",  # a peer's environment must not see this one's packages
    }
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [python, "-m", "experiments.benchmark_worker", str(job_file), str(answer)],
            cwd=workspace, env=environment, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        limit = _GRACE_SECONDS + job.seconds + job.warmup_seconds
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"no answer within {limit:.0f} s"}
        finally:
            with contextlib.suppress(ProcessLookupError):  # with its own children: data loaders' workers
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            return json.loads(answer.read_text())
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
        return {"failed": lines[-1] if lines else f"ended with code {process.returncode}"}


def _python(contender: contenders.Contender, settings: Settings) -> str:
    return settings.pythons.get(contender.peer, sys.executable)


def entry() -> int:
    return cli.run(main, FLAGS, name="experiments.benchmark_throughput")


if __name__ == "__main__":
    sys.exit(entry())
