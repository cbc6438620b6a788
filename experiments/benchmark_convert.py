"""How fast a folder of images becomes shards, beside the bare decoder and other writers.

    python -m experiments.benchmark_convert --images=FOLDER --output=RESULT.json

Every method reads the same files, with the same number of processes, on files that are in the page
cache, in turns: the table gives the median of --repeats and the ratio to the bare decoder. The
bare decoder (libjpeg-turbo through simplejpeg, accurate pixels) writes nothing. TFDS's writer and
FFCV's check nothing: they copy (TFDS) or read headers (FFCV in jpeg mode).

Peers live in environments of their own: --ffcv_python and --img2dataset_python name the
interpreters, and a peer without one is reported as not installed.
"""

import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from absl import flags

from tfrecords_tools import cli

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "images", None, "Folder of JPEG images, for example of ArtiFact's layout.", flag_values=FLAGS
)
flags.DEFINE_string("output", None, "JSON file for the result; default: only the table.", flag_values=FLAGS)
flags.DEFINE_integer("workers", 2, "Processes of each method.", flag_values=FLAGS)
flags.DEFINE_integer("repeats", 3, "Rounds; the median counts.", flag_values=FLAGS)
flags.DEFINE_string("ffcv_python", None, "Python interpreter with ffcv 1.0.2.", flag_values=FLAGS)
flags.DEFINE_string("img2dataset_python", None, "Python interpreter with img2dataset.", flag_values=FLAGS)

_FFCV = """
import json, pathlib, sys, time
from PIL import Image
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter
files = sys.argv[3].split("\\n")
class Files:
    def __len__(self): return len(files)
    def __getitem__(self, index): return Image.open(files[index]).convert("RGB"), 0
if __name__ == "__main__":
    start = time.perf_counter()
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    DatasetWriter(sys.argv[1], fields, num_workers=int(sys.argv[2])).from_indexed_dataset(Files())
    print(json.dumps({"seconds": time.perf_counter() - start}))
"""
_IMG2DATASET = """
import functools, http.server, json, os, sys, threading, time
from img2dataset import download
root, output, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass
if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(output + ".txt", "w") as urls:
        for line in sys.argv[4].split("\\n"):
            urls.write(f"http://127.0.0.1:{server.server_port}/{line}\\n")
    start = time.perf_counter()
    download(url_list=output + ".txt", output_folder=output, output_format="tfrecord",
             processes_count=workers, thread_count=16, resize_mode="no", number_sample_per_shard=1000)
    print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def main(options: flags.FlagValues) -> None:
    """Measures, prints the table, writes the JSON."""
    if not options.images:
        raise cli.UsageError("--images is needed")
    if options.workers < 1 or options.repeats < 1:
        raise cli.UsageError("--workers and --repeats are at least 1")
    files = sorted(str(path) for path in pathlib.Path(options.images).rglob("*.jpg"))
    if not files:
        raise cli.DataError(f"{options.images}: no .jpg files in it")
    for file in files:
        pathlib.Path(file).read_bytes()  # into the page cache
    methods = _methods(options, files)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(options.repeats):
        for name, method in methods.items():
            with tempfile.TemporaryDirectory() as folder:
                taken = method(folder)
            if taken is not None:
                seconds[name].append(taken)
    _tell(options, files, seconds)


def _methods(options, files: list[str]) -> dict[str, Callable[[str], float | None]]:
    workers, few = options.workers, files[:2_000]  # some peers are too slow for all of them
    scale = len(files) / len(few)
    return {
        "bare libjpeg-turbo decode": lambda folder: _bare(files, workers),
        "ours: convert, every image decoded": lambda folder: _ours(options.images, folder, workers),
        "TFDS SequentialWriter, bytes copied, 1 process": lambda folder: _tfds(few, folder) * scale,
        "FFCV 1.0.2 DatasetWriter, jpeg": lambda folder: _peer(
            options.ffcv_python, _FFCV, f"{folder}/out.beton", str(workers), "\n".join(files)
        ),
        "img2dataset, local server, tfrecord": lambda folder: _peer(
            options.img2dataset_python, _IMG2DATASET, options.images, f"{folder}/out", str(workers),
            "\n".join(os.path.relpath(file, options.images) for file in few), scale=scale,
        ),
    }  # fmt: skip


def _decode(files: list[str]) -> int:
    import simplejpeg

    return sum(simplejpeg.decode_jpeg(pathlib.Path(file).read_bytes(), "RGB").shape[0] > 0 for file in files)


def _bare(files: list[str], workers: int) -> float:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(_decode, [files[:1]] * workers)  # started and imported
        start = time.perf_counter()
        pool.map(_decode, [files[index::workers] for index in range(workers)], chunksize=1)
        return time.perf_counter() - start


def _ours(images: str, folder: str, workers: int) -> float:
    """The whole command: start of Python, listing, writing, manifest."""
    command = [sys.executable, "-m", "tfrecords_tools.convert", f"--input_dir={images}"]
    start = time.perf_counter()
    subprocess.run(
        [*command, f"--output_dir={folder}/out", f"--workers={workers}"], check=True, capture_output=True
    )
    return time.perf_counter() - start


def _tfds(files: list[str], folder: str) -> float:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, utils

    features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "key": tfds.features.Text()})
    identity = dataset_info.DatasetIdentity(
        name="peer", version=utils.Version("1.0.0"), data_dir=folder, module_name=""
    )
    info = dataset_info.DatasetInfo(builder=identity, features=features)
    start = time.perf_counter()
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=1000)
    writer.initialize_splits(["train"])
    for file in files:
        writer.add_examples({"train": [{"image": file, "key": file}]})
    writer.close_all()
    return time.perf_counter() - start


def _peer(python: str | None, code: str, *words: str, scale: float = 1.0) -> float | None:
    """A peer's seconds; None when it is not installed. `scale`: files in all per file it was given."""
    if python is None or shutil.which(python) is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        done = subprocess.run([python, script.name, *words], capture_output=True, text=True)
    if done.returncode:
        raise cli.DataError(f"{python}: the peer failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds"] * scale


def _tell(options, files: list[str], seconds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) if values else None for name, values in seconds.items()}
    bare = medians["bare libjpeg-turbo decode"]
    size = sum(pathlib.Path(file).stat().st_size for file in files)
    amount = f"{len(files):,} files, {size / 1e6:,.0f} MB"
    print(f"{amount}, {options.workers} processes, median of {options.repeats}")
    rows = []
    for name, taken in medians.items():
        if taken is None:
            print(f"  {name:<50} not installed")
            continue
        rate = len(files) / taken
        rows.append(
            {"name": name, "images_per_second": rate, "ratio": bare / taken, "seconds": seconds[name]}
        )
        print(f"  {name:<50} {rate:>9,.0f} images/s {bare / taken:>6.2f} of the bare decoder")
    if options.output:
        document = {"files": len(files), "bytes": size, "workers": options.workers, "results": rows}
        partial = pathlib.Path(f"{options.output}.partial")
        partial.write_text(json.dumps(document, indent=1) + "\n")
        partial.replace(options.output)


def entry() -> int:
    """The console script."""
    return cli.run(main, FLAGS, name="experiments.benchmark_convert")


if __name__ == "__main__":
    sys.exit(entry())
