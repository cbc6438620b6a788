"""What a GPU makes of deepduel, against plain Keras in the same run: one command, ten minutes, one page.

    python -m experiments.benchmark_gpu --output=RESULT.json
    python -m experiments.benchmark_gpu --output=RESULT.json --small      a tiny form that runs on a CPU too

Draws its own images. RESULT.json has a row for each measurement, with versions, driver and card;
RESULT.md is the page.

1. Frozen Xception and VGG-16 at each batch size, EfficientNetV2-S fine-tuned, in each precision: images/s,
   peak memory beside the estimate of --dry_run, utilisation; deepduel and Keras' fit, and at a batch of 64
   both compiled by XLA.
2. The warp against the keras-cv layers and flow_from_directory.
3. The share of the time spent waiting for input with 2, 4, 8, 16 cores, and, from the profiler's trace, how
   busy the GPU was and whether copies to it overlapped its work.

Each measurement runs in a fresh process. What --minutes leave no time for is listed as not measured.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.progress import Progress

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output",
    None,
    "JSON file for the results; the page is written beside it.",
    flag_values=FLAGS,
    required=True,
)
flags.DEFINE_bool("small", False, "Use a small network and small batches, to try the program.",
                  flag_values=FLAGS)  # fmt: skip
flags.DEFINE_float(
    "minutes", 10.0, "Minutes after which no further measurement begins.", lower_bound=0.1, flag_values=FLAGS
)
flags.DEFINE_float("seconds", 3.0, "Minimum length of one measurement.", lower_bound=0.1, flag_values=FLAGS)
flags.DEFINE_integer("micro_batch", 128, "Micro-batch of deepduel.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_list(
    "batches", ["64", "512", "1024", "4096"], "Batch sizes of the frozen networks.", flag_values=FLAGS
)
flags.DEFINE_list(
    "precisions", ["float32", "mixed_float16", "mixed_bfloat16"], "Precisions to measure.", flag_values=FLAGS
)

STORED_SIZE = 200  # pixels
_CORES = (2, 4, 8, 16)
_XLA_BATCH = 64  # the only one of EfficientNetV2-S; compiling takes a minute


def main(options: flags.FlagValues) -> None:
    output = pathlib.Path(options.output)
    if not output.parent.is_dir():
        raise UsageError(f"--output={output}: there is no folder {output.parent}")
    for text in options.batches:
        if not text.isdigit() or int(text) < 1:
            raise UsageError(f"--batches takes numbers from 1 on, got {text!r}")
    deadline = time.time() + 60 * options.minutes
    machine = about()
    if machine["gpu"] is None and not options.small:
        raise DataError("no GPU: nvidia-smi finds none; --small runs a small form on the CPU")
    with tempfile.TemporaryDirectory() as folder:
        data, images = write_data(pathlib.Path(folder), options.small)
        jobs = make_jobs(options, data, images, pathlib.Path(folder), deadline)
        rows = []
        with Progress("measuring", total=len(jobs), unit="processes") as bar:
            for number, job in enumerate(jobs):
                bar.update(number)
                rows += measure(job, deadline)
                save(output, {"machine": machine, "rows": rows})
    print(output.with_suffix(".md").read_text("utf-8"))


def about() -> dict:
    """The machine and the versions."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    gpu = None
    if shutil.which("nvidia-smi"):
        done = subprocess.run(query, capture_output=True, text=True)
        gpu = done.stdout.strip() or None if done.returncode == 0 else None
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "keras-cv")}
    return {
        "gpu": gpu, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"), **versions,
    }  # fmt: skip


def write_data(folder: pathlib.Path, small: bool) -> tuple[pathlib.Path, pathlib.Path]:
    """(folder of shards, folder of images): toy images, in the shards again and again."""
    from deepduel import toy_images
    from deepduel.decoding.split import Split
    from experiments import synthetic_shards

    images, converted, shards = folder / "images", folder / "converted", folder / "shards"
    toy_images.write_folder(images, count=120 if small else 1200, size=STORED_SIZE, seed=0)
    words = f"--input_dir={images}", f"--output_dir={converted}"
    subprocess.run([sys.executable, "-m", "tfrecords_tools.convert", *words], check=True, capture_output=True)
    count, per_shard = (128, 64) if small else (16384, 2048)
    synthetic_shards.write(Split(converted, "train"), shards, records=count, per_shard=per_shard)
    return shards, images


def make_jobs(
    options, data: pathlib.Path, images: pathlib.Path, folder: pathlib.Path, deadline
) -> list[dict]:
    """What is measured, the most telling first."""
    common = {"data_dir": str(data), "seconds": options.seconds, "deadline": deadline}
    common |= {"micro_batch": options.micro_batch, "image_size": 224, "stored_size": STORED_SIZE}
    common["xla_batches"] = [_XLA_BATCH]
    networks = {"xception": list(map(int, options.batches)), "vgg16": list(map(int, options.batches))}
    networks["efficientnetv2s"] = [64]
    precisions = options.precisions
    ways = {"ways": ["deepduel", "keras"], "xla_ways": ["deepduel-xla", "keras-xla"]}
    waiting = {"network": "xception", "precision": "mixed_float16", "batch": 512}
    if options.small:
        common |= {"micro_batch": 16, "image_size": 32, "seconds": min(options.seconds, 1.0)}
        networks, precisions, common["xla_batches"] = {"small_cnn": [16, 64]}, ["float32"], [16]
        waiting = {"network": "small_cnn", "precision": "float32", "batch": 64}
    training = [
        {**common, **ways, "kind": "training", "network": network, "precision": precision, "batches": batches}
        for precision in precisions
        for network, batches in networks.items()
    ]  # fmt: skip
    available = len(os.sched_getaffinity(0))
    cores = [count for count in _CORES if count <= available] or [available]
    waits = [
        {**common, **waiting, "kind": "waiting", "cores": count, "trace": count == cores[-1]}
        for count in cores
    ]
    augmentation = {**common, "kind": "augmentation", "job": _loader_job(data, images, folder, options.small)}
    return [augmentation, waits[-1], *training, *waits[:-1]]


def _loader_job(data: pathlib.Path, images: pathlib.Path, folder: pathlib.Path, small: bool) -> dict:
    """A job of `benchmark_throughput`'s contenders, as they need it here."""
    files = sorted(map(str, (images / "train").rglob("*.jpg")))
    shards = (path for path in data.glob("*.tfrecord-*") if path.suffix not in (".idx", ".npy"))
    return {
        "contender": "", "prepare": False, "data_dir": str(data), "split": "train",
        "shards": sorted(map(str, shards)),
        "files": files, "folder": str(images / "train"), "labels": [0] * len(files), "scratch": str(folder),
        "size": [STORED_SIZE, STORED_SIZE], "target_size": 64 if small else 224,
        "batch_size": 16 if small else 128, "threads": len(os.sched_getaffinity(0)), "seconds": 0.0,
        "warmup_seconds": 0.0, "cold": False, "bytes": 0,
    }  # fmt: skip


def measure(job: dict, deadline: float) -> list[dict]:
    """The rows of one process; those that it had printed when it failed or was ended too."""
    about_job = {name: job[name] for name in ("kind", "network", "precision", "cores") if name in job}
    left = deadline - time.time()
    if left <= 0:
        return [about_job | {"failed": "the time was over"}]
    words = [sys.executable, "-m", "experiments.benchmark_gpu_job", json.dumps(job)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, errors = process.communicate(timeout=left + 60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        errors = "the time was over"
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if process.returncode:
        reason = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        rows.append(about_job | {"failed": reason[:200]})
    return rows


def save(output: pathlib.Path, result: dict) -> None:
    from experiments import benchmark_gpu_page

    texts = {output: json.dumps(result, indent=1) + "\n"}
    texts[output.with_suffix(".md")] = benchmark_gpu_page.page(result)
    for path, text in texts.items():
        with published(path) as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.benchmark_gpu"))
