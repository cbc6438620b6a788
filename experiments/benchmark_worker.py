"""One contender in a process of its own: a job in, an answer out, both JSON files.

    python -m experiments.benchmark_worker JOB.json ANSWER.json

loader_bytes is how far the peak of resident memory lies above what the imports alone had taken.
Needs only the standard library, so that it runs in any peer's environment. The answer is one of

    {"images_per_second": …, "images": …, "seconds": …, "cpu_seconds": …, "first_batch_seconds": …,
     "batch": "uint8 [128, …]", "bytes": …, "peak_rss_bytes": …, "loader_bytes": …, "versions": {…}}
    {"prepared_seconds": …, "bytes": …}
    {"missing": ["ffcv"]}
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Iterator

from experiments import benchmark_contenders as contenders
from experiments.benchmark_job import Job


def main(path: str, answer: str) -> None:
    job = Job(**json.loads(pathlib.Path(path).read_text()))
    cores = sorted(os.sched_getaffinity(0))[: job.threads]
    os.sched_setaffinity(0, cores)
    contender = contenders.by_name(job.contender)
    missing = [name for name in contender.imports if not _importable(name)]
    if missing:
        result = {"missing": missing}
    else:
        module = importlib.import_module(f"experiments.{contender.module}")
        if job.prepare:
            start = time.perf_counter()
            getattr(module, contender.prepare)(job, **contender.options)
            result = {"prepared_seconds": time.perf_counter() - start, "bytes": _size(job, contender)}
        else:
            if job.cold:
                evict(job.stored(contender.reads))
            imported = peak_rss_bytes()
            batches = getattr(module, contender.function)(job, **contender.options)
            result = measure(batches, job)
            result |= {"bytes": _size(job, contender), "peak_rss_bytes": peak_rss_bytes()}
            result["loader_bytes"] = result["peak_rss_bytes"] - imported
            result["versions"] = versions(contender.distributions)
    # A file and not a pipe: a loader's worker processes would hold the pipe open.
    pathlib.Path(answer).write_text(json.dumps(result))
    os._exit(0)  # loaders' threads and processes need no farewell; some would hang


def measure(batches: Iterator[tuple[int, object]], job: Job, clock=time.perf_counter) -> dict:
    """Takes batches until the time is over; images/s after the warm-up.

    A cold measurement has no warm-up: it lasts from the first batch to the end of one epoch.
    """
    start = clock()
    count, batch = next(batches)
    first, described = clock() - start, describe(batch)
    del batch  # a consumer that keeps a batch would keep its buffer from being used again
    epoch = max(len(job.files) - count, 1)
    start = clock()
    while not job.cold and clock() - start < job.warmup_seconds:
        next(batches)
    images, cpu, start = 0, cpu_seconds(), clock()
    while True:
        images += next(batches)[0]
        seconds = clock() - start
        if images >= epoch if job.cold else seconds >= job.seconds:
            break
    return {
        "images_per_second": images / seconds,
        "images": images,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds() - cpu,
        "first_batch_seconds": first,
        "batch": described,
    }


def describe(batch) -> str:
    """A batch in words: "uint8 [128, 200, 200, 3]"."""
    if isinstance(batch, str):
        return batch
    dtype = getattr(batch.dtype, "name", str(batch.dtype)).replace("torch.", "")
    return f"{dtype} {[int(extent) for extent in batch.shape]}"


def evict(paths: list[str]) -> None:
    """Asks the kernel to forget the files' pages, so that reading goes to the disk again."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # pages that are still to be written cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def peak_rss_bytes() -> int:
    """Peak resident memory of this process and its living children, summed (Linux; else 0)."""
    total = 0
    for process in _family():
        for line in (process / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_seconds() -> float:
    """Processor time of this process and its living children so far (Linux; else 0)."""
    ticks = 0
    for process in _family():
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def _family() -> list[pathlib.Path]:
    """/proc folders of this process and of its living descendants, whichever thread started them."""
    family = [pathlib.Path("/proc/self")] if pathlib.Path("/proc/self/task").exists() else []
    for process in family:  # grows meanwhile
        for children in process.glob("task/*/children"):
            with contextlib.suppress(OSError):  # the thread has ended
                family += [pathlib.Path("/proc", child) for child in children.read_text().split()]
    return family


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in distributions:
        try:
            versions[name] = importlib.metadata.version(name)
        except (
            importlib.metadata.PackageNotFoundError
        ):  # tensorflow-cpu, pillow-simd: the module goes by the name
            module = sys.modules.get({"Pillow": "PIL"}.get(name, name))
            versions[name] = getattr(module, "__version__", "unknown")
    return versions


def _size(job: Job, contender: contenders.Contender) -> int:
    """Bytes of the data set in the form in which the contender takes it."""
    if contender.reads is None:
        return job.bytes
    return sum(pathlib.Path(path).stat().st_size for path in job.stored(contender.reads))


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False  # the package above it is missing


if __name__ == "__main__":
    main(*sys.argv[1:])
