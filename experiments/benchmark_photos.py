"""Measures how fast photographs of any size become uint8 batches of one size, against everyone.

    python -m experiments.benchmark_photos --images=PHOTOS --output=RESULT.json

Takes all upright RGB and gray JPEG files below PHOTOS, several times over where they are few,
converts them (as they are) and runs each contender in a fresh process of its own, one after the
other: A B C A B C. Who is not installed is reported; --peer_python as in
benchmark_throughput. Three rounds take 3 minutes.

    … --megapixels=12 --batch_size=16        mosaics as large as a phone's photographs instead
    … --cache=cold                           from the disk, one epoch instead of --seconds
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

from absl import flags

from experiments import benchmark_contenders as contenders
from experiments import benchmark_throughput as throughput
from experiments import large_photos
from experiments.benchmark_job import Job
from tfrecords_tools import cli
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.images import jpeg

_LEAST = 1024  # images of a data set: epochs of a few batches would measure their ends
_LEAST_LARGE = 64  # likewise with --megapixels, for which shards of 1024 images would take gigabytes

FLAGS = flags.FlagValues()
flags.DEFINE_string("images", None, "Folder of photographs.", flag_values=FLAGS, required=True)
flags.DEFINE_string("output", None, "JSON file for the results.", flag_values=FLAGS, required=True)
flags.DEFINE_list("contenders", "*", "Names or patterns such as *ours*.", flag_values=FLAGS)
flags.DEFINE_list("peer_python", "", "PEER=INTERPRETER for any of ffcv, dali.", flag_values=FLAGS)
flags.DEFINE_integer("rounds", 3, "Measurements of each contender.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float("seconds", 4.0, "Length of one measurement.", lower_bound=0.1, flag_values=FLAGS)
flags.DEFINE_float(
    "warmup_seconds",
    1.0,
    "Length of the warm-up before each measurement.",
    lower_bound=0.0,
    flag_values=FLAGS,
)
flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float(
    "megapixels", 0.0, "Enlarge each image to this many megapixels; 0 leaves the photographs as they are.",
    lower_bound=0.0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_list(
    "cache", "warm", "State of the page cache: warm, or cold (emptied first, and one epoch is measured).",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "image_size", 224, "Side of the resized images in pixels.", lower_bound=1, flag_values=FLAGS
)


def main(options: flags.FlagValues) -> None:
    output = pathlib.Path(options.output)
    if output.suffix != ".json" or not output.absolute().parent.is_dir():
        raise UsageError(f"--output={output}: give a name ending in .json, in a folder that exists")
    from experiments import benchmark_report as report

    settings = _settings(options)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        job = dataset(options, pathlib.Path(scratch))
        runs = throughput.measure_all(job, settings, pathlib.Path(scratch))
        document = report.document(job, settings, runs)
    with published(output) as file:
        file.write(json.dumps(document, indent=1) + "\n")
    print(report.text(document))
    print(f"\n{output}")


def _settings(options: flags.FlagValues) -> throughput.Settings:
    try:
        chosen = contenders.select(options.contenders, contenders.PHOTO_CONTENDERS)
    except ValueError as error:
        raise UsageError(str(error)) from None
    pythons = dict(entry.partition("=")[::2] for entry in options.peer_python if entry)
    return throughput.Settings(
        chosen, pythons, (len(os.sched_getaffinity(0)),), tuple(options.cache), options.rounds,
        options.seconds, options.warmup_seconds, options.batch_size, options.image_size,
    )  # fmt: skip


def dataset(options: flags.FlagValues, scratch: pathlib.Path) -> Job:
    """The photographs, as often as needed, and shards of them.

    They are links, but copies for a cold cache: of a photograph's links, all but the first would be warm.

    Raises:
      DataError: there are no JPEG files, or some are not kept as they are.
    """
    from deepduel.decoding.split import Split
    from tfrecords_tools import convert

    endings = (".jpg", ".jpeg")
    photos = [path.resolve() for path in sorted(pathlib.Path(options.images).rglob("*"))]
    photos = [path for path in photos if path.suffix.lower() in endings and _kept(path)]
    if not photos:
        raise DataError(f"--images={options.images}: there are no upright JPEG files there")
    least = _LEAST
    if options.megapixels:
        least = _LEAST_LARGE
        photos = large_photos.write(photos, scratch / "large", options.megapixels, min(least, len(photos)))
    repeats = -(-least // len(photos))
    folder = scratch / "files"
    files = []
    for number, path in enumerate(photos * repeats):
        link = folder / "train" / str(number % 2) / f"{number:06d}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        if "cold" in options.cache:
            shutil.copyfile(path, link)
        else:
            link.symlink_to(path)
        files.append(str(link))
    words = f"--input_dir={folder}", f"--output_dir={scratch}/shards", "--max_rejected=1"
    if cli.run(convert.main, convert.FLAGS, name="convert", argv=["convert", *words]) != 0:
        raise DataError(f"--images={options.images}: could not be converted")
    split = Split(scratch / "shards", "train")
    if set(split.manifest.encodings) != {"jpeg"} or len(split) != len(files):
        raise DataError(f"--images={options.images}: some are damaged; remove them")
    return Job(
        contender="", prepare=False, data_dir=str(split.data_dir), split="train",
        shards=[str(split.data_dir / shard.file) for shard in split.shards], files=files,
        folder=str(folder / "train"), labels=[number % 2 for number in range(len(files))],
        scratch=str(scratch), size=(options.image_size, options.image_size),
        target_size=options.image_size, batch_size=options.batch_size, threads=1, seconds=options.seconds,
        warmup_seconds=options.warmup_seconds, cold=False,
        bytes=sum(path.stat().st_size for path in photos) * repeats,
    )  # fmt: skip


def _kept(path: pathlib.Path) -> bool:
    """Whether it is stored as it is: an upright RGB or gray JPEG, which all contenders read alike."""
    header = jpeg.scan(path.read_bytes()) if path.is_file() else None
    return header is not None and header.plain


def entry() -> int:
    return cli.run(main, FLAGS, name="experiments.benchmark_photos")


if __name__ == "__main__":
    sys.exit(entry())
