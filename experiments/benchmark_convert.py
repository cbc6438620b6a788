"""How fast a folder of images becomes shards, beside the bare decoder and other writers.

    python -m experiments.benchmark_convert --images=FOLDER --output=RESULT.json

Every method reads the same files, with the same number of processes, on files that are in the page
cache, in turns: the table gives the median of --repeats, and the ratio to the bare decoder within each
round. The bare decoder (libjpeg-turbo through simplejpeg, accurate pixels) writes nothing, and its
processes are started before the clock. Ours is the whole command, from the start of Python on; its
steady rate leaves out start-up and listing: it is the rate that the command itself prints.

Peers, from the start of their writing on, without their imports: TFDS's writer copies bytes unread, in
one process. FFCV decodes each image with Pillow and encodes it again as JPEG. img2dataset has no way
from files: it downloads from a server on this machine, and stores the bytes as they came. Each checks
what it wrote: a peer that lost images is an error. --peer_images of the files are given to each peer.

Peers live in environments of their own: --ffcv_python and --img2dataset_python name the
interpreters, and a peer without one is reported as not installed.
"""

import json
import multiprocessing
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "images", None, "Folder of JPEG images, for example of ArtiFact's layout.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output", None, "JSON file for the results; without it, only the table is printed.", flag_values=FLAGS
)
flags.DEFINE_integer("workers", 2, "Number of processes of each method.", flag_values=FLAGS)
flags.DEFINE_integer(
    "repeats", 3, "Measurements of each method, of which the median is shown.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "peer_images", 2_000, "Maximum number of files that the peers convert.", flag_values=FLAGS
)
flags.DEFINE_string(
    "scratch", None, "Folder for the outputs, which are deleted again; by default a temporary folder.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string("ffcv_python", None, "Python interpreter with ffcv 1.0.2.", flag_values=FLAGS)
flags.DEFINE_string("img2dataset_python", None, "Python interpreter with img2dataset.", flag_values=FLAGS)

BARE = "bare libjpeg-turbo decode"

_FFCV = """
import json, sys, time
from PIL import Image
from ffcv.fields import IntField, RGBImageField
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter
files = open(sys.argv[1]).read().split("\\n")
class Files:
    def __len__(self): return len(files)
    def __getitem__(self, index): return Image.open(files[index]).convert("RGB"), 0
if __name__ == "__main__":
    output = sys.argv[2] + "/out.beton"
    fields = {"image": RGBImageField(write_mode="jpg"), "label": IntField()}
    start = time.perf_counter()
    DatasetWriter(output, fields, num_workers=int(sys.argv[3])).from_indexed_dataset(Files())
    print(json.dumps({"seconds": time.perf_counter() - start, "images": int(Reader(output).num_samples)}))
"""
_IMG2DATASET = """
import functools, glob, http.server, json, multiprocessing, os, sys, time
from img2dataset import download
class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
def serve(pipe):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory="/"))
    pipe.send(server.server_port)
    server.serve_forever()
if __name__ == "__main__":
    files, output, workers = open(sys.argv[1]).read().split("\\n"), sys.argv[2], int(sys.argv[3])
    pipe, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    port = pipe.recv()
    with open(output + "/urls.txt", "w") as urls:
        urls.writelines(f"http://127.0.0.1:{port}{file}\\n" for file in files)
    start = time.perf_counter()
    download(url_list=output + "/urls.txt", output_folder=output + "/out", output_format="webdataset",
             processes_count=workers, thread_count=16, resize_mode="no", number_sample_per_shard=1000)
    seconds = time.perf_counter() - start
    stats = [json.load(open(file)) for file in glob.glob(output + "/out/*_stats.json")]
    print(json.dumps({"seconds": seconds, "images": sum(each["successes"] for each in stats)}))
"""


def main(options: flags.FlagValues) -> None:
    """Measures, prints the table, writes the JSON."""
    if not options.images:
        raise UsageError("--images is needed")
    if min(options.workers, options.repeats, options.peer_images) < 1:
        raise UsageError("--workers, --repeats and --peer_images are at least 1")
    files = sorted(str(path) for path in pathlib.Path(options.images).resolve().rglob("*.jpg"))
    if not files:
        raise DataError(f"{options.images}: no .jpg files in it")
    for file in files:
        pathlib.Path(file).read_bytes()  # into the page cache
    methods = _methods(options, files)
    rates: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        for method in methods:
            with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
                for name, rate in method(folder).items():
                    rates.setdefault(name, []).append(rate)
    _tell(options, files, rates)


def _methods(options, files: list[str]) -> list[Callable[[str], dict[str, float]]]:
    """Each takes a scratch folder and gives images/s by name."""
    few, workers = files[:: -(-len(files) // options.peer_images)], options.workers
    methods = [
        lambda folder: {BARE: len(files) / _bare(files, workers)},
        lambda folder: _ours(options.images, len(files), folder, workers),
        lambda folder: {"TFDS SequentialWriter, bytes copied, 1 process": len(few) / _tfds(few, folder)},
    ]
    for name, flag, code in (
        ("FFCV DatasetWriter, jpeg", "ffcv_python", _FFCV),
        ("img2dataset, from a local server", "img2dataset_python", _IMG2DATASET),
    ):
        python = options[flag].value
        if python is None or shutil.which(python) is None:
            print(f"{name}: not installed (--{flag} names its interpreter)")
            continue
        methods.append(
            lambda folder, name=name, python=python, code=code: {
                name: len(few) / _peer(python, code, few, folder, workers)
            }
        )
    return methods


def _decode(files: list[str]) -> int:
    import simplejpeg

    count = 0
    for file in files:
        with open(file, "rb") as opened:  # noqa: PTH123, without the time of pathlib
            count += simplejpeg.decode_jpeg(opened.read(), "RGB").shape[0] > 0
    return count


def _bare(files: list[str], workers: int) -> float:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(_decode, [files[:1]] * workers, chunksize=1)  # started and imported
        start = time.perf_counter()
        pool.map(_decode, [files[index::workers] for index in range(workers)], chunksize=1)
        return time.perf_counter() - start


def _ours(images: str, count: int, folder: str, workers: int) -> dict[str, float]:
    """The whole command, and the rate that it prints for writing alone."""
    command = [sys.executable, "-m", "tfrecords_tools.convert", f"--input_dir={images}"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, f"--output_dir={folder}/out", f"--workers={workers}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    whole = count / (time.perf_counter() - start)
    steady = float(re.search(r"\(([\d,]+) images/s\)", done.stdout)[1].replace(",", ""))
    return {"ours, the whole command, every image decoded": whole, "ours, steady rate": steady}


def _tfds(files: list[str], folder: str) -> float:
    import tensorflow  # noqa: F401 - TFDS imports it at its first record
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
    writer.add_examples({"train": [{"image": file, "key": file} for file in files]})
    writer.close_all()
    return time.perf_counter() - start


def _peer(python: str, code: str, files: list[str], folder: str, workers: int) -> float:
    """A peer's seconds. Raises DataError when it fails or loses images."""
    script, listed = pathlib.Path(folder, "peer.py"), pathlib.Path(folder, "files.txt")
    script.write_text(code)
    listed.write_text("\n".join(files))
    done = subprocess.run([python, script, listed, folder, str(workers)], capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"{python}: the peer failed: {done.stderr.strip().splitlines()[-1:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if result["images"] != len(files):
        raise DataError(f"{python}: the peer wrote {result['images']} of {len(files)} images")
    return result["seconds"]


def _tell(options, files: list[str], rates: dict[str, list[float]]) -> None:
    size = sum(pathlib.Path(file).stat().st_size for file in files)
    amount = f"{len(files):,} files, {size / 1e6:,.0f} MB"
    print(f"{amount}, {options.workers} processes, median of {options.repeats} (lowest to highest)")
    rows = []
    for name, measured in rates.items():
        ratio = statistics.median(rate / bare for rate, bare in zip(measured, rates[BARE], strict=True))
        rows.append({"name": name, "images_per_second": measured, "ratio": ratio})
        spread = f"({min(measured):,.0f} to {max(measured):,.0f})"
        median = statistics.median(measured)
        print(f"  {name:<50} {median:>7,.0f} images/s {spread:<18} {ratio:>6.3f} of bare")
    if options.output:
        document = {"files": len(files), "bytes": size, "workers": options.workers, "results": rows}
        with published(options.output) as file:
            file.write(json.dumps(document, indent=1) + "\n")


def entry() -> int:
    """The console script."""
    return cli.run(main, FLAGS, name="experiments.benchmark_convert")


if __name__ == "__main__":
    sys.exit(entry())
