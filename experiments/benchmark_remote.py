"""Reads shards from an S3 server on this machine that waits before each answer, as a store far away does.

    python -m experiments.benchmark_remote --data_dir=SHARDS --output=remote.json

Each way of keeping what was read opens the split and reads two epochs in a process of its own; the first
fetches, the second finds what the first kept. Needs the extra `test` (moto) and `remote` (s3fs).
"""

import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import sys
import tempfile
import threading
import time
import urllib.request
import uuid

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest, storage
from tfrecords_tools.progress import Progress

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "data_dir", None, "Local folder of shards, to be copied to the server.", flag_values=FLAGS
)
flags.DEFINE_string("split", "train", "Split to read.", flag_values=FLAGS)
flags.DEFINE_integer(
    "delay", 30, "Milliseconds that the server waits before each response.", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("size", 224, "Side of the resized images in pixels.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_list("caches", ["auto", "none"], "Values of --remote_cache to compare.", flag_values=FLAGS)
flags.DEFINE_float("seconds", 60, "Maximum seconds of each epoch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string("output", "", "JSON file for the results.", flag_values=FLAGS)

_COUNT = "/requests-so-far"


def main(options: flags.FlagValues) -> None:
    if not options.data_dir:
        raise UsageError("--data_dir is needed: a folder of shards")
    spawn = multiprocessing.get_context("spawn")
    address, theirs = spawn.Pipe(duplex=False)
    server = spawn.Process(target=serve, args=(theirs, options.delay / 1e3), daemon=True)
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": address.recv(), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    url = _upload(pathlib.Path(options.data_dir))
    stored = sum(shard.bytes for shard in manifest.load(options.data_dir).splits[options.split].shards)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for cache in options.caches:
            out = pathlib.Path(scratch, f"{len(rows)}.json")
            job = {"url": url, "split": options.split, "cache": cache, "batch_size": options.batch_size}
            job |= {"size": options.size, "seconds": options.seconds, "output": os.fspath(out)}
            reader = spawn.Process(target=measure, args=(job,))
            reader.start()
            reader.join()
            rows.append(json.loads(out.read_text()))
            print(_line(rows[-1]), flush=True)
    server.terminate()
    if options.output:
        document = {"delay_ms": options.delay, "split_bytes": stored, "batch_size": options.batch_size,
                    "size": options.size, "processor": _processor(), "results": rows}  # fmt: skip
        with published(options.output) as file:
            file.write(json.dumps(document, indent=1) + "\n")


def serve(address: multiprocessing.connection.Connection, delay: float) -> None:
    """Serves S3 until it is terminated; answers `delay` seconds late, and counts."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    store, counted, lock = DomainDispatcherApplication(create_backend_app), [0], threading.Lock()

    def application(environ, start_response):
        if environ["PATH_INFO"] == _COUNT:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(counted[0]).encode()]
        with lock:
            counted[0] += 1
        time.sleep(delay)
        return store(environ, start_response)

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_):
            pass

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    address.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def measure(job: dict) -> None:
    """Opens the split and reads two epochs; writes what that took."""
    cli.quiet_tensorflow()
    from deepduel import pipeline
    from deepduel.decoding.split import Split

    before, start = _requests(), time.perf_counter()
    images = len(Split(job["url"], job["split"]))
    row = {"cache": job["cache"], "open_seconds": time.perf_counter() - start}
    row["open_requests"] = _requests() - before
    batches = iter(pipeline.make_train(
        job["url"], split=job["split"], batch_size=job["batch_size"], size=(job["size"], job["size"]),
        remote_cache=job["cache"],
    ))  # fmt: skip
    for epoch in ("first", "second"):
        before, start, read = _requests(), time.perf_counter(), 0
        while read < images and time.perf_counter() - start < job["seconds"]:
            batch = next(batches)[0]
            if not read:
                row[f"{epoch}_batch_seconds"] = time.perf_counter() - start
            read += len(batch)
        row[f"{epoch}_images_per_second"] = read / (time.perf_counter() - start)
        row[f"{epoch}_images"], row[f"{epoch}_requests"] = read, _requests() - before
    pathlib.Path(job["output"]).write_text(json.dumps(row))


def _requests() -> int:
    with urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + _COUNT) as answer:
        return int(answer.read())


def _upload(folder: pathlib.Path) -> str:
    import s3fs

    url = f"s3://bucket-{uuid.uuid4().hex[:8]}/shards"
    s3fs.S3FileSystem().mkdir(url.split("/")[2])
    store, files = storage.open_folder(url), [path for path in folder.iterdir() if path.is_file()]
    with Progress("copying", unit="files", total=len(files)) as bar:
        for number, path in enumerate(files):
            bar.update(number)
            store.write(path.name, path.read_bytes())
    return url


def _line(row: dict) -> str:
    return (
        f"{row['cache']}: opened in {row['open_seconds']:.2f} s by {row['open_requests']} requests; "
        f"first batch after {row['first_batch_seconds']:.2f} s; epochs of {row['first_images']:,} and "
        f"{row['second_images']:,} images: {row['first_images_per_second']:,.0f} and "
        f"{row['second_images_per_second']:,.0f} images/s, {row['first_requests']:,} and "
        f"{row['second_requests']:,} requests"
    )


def _processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.benchmark_remote"))
