"""Time and memory of listing a folder of many files and many classes.

    python -m experiments.benchmark_listing --files=1000000 --classes=40000

Writes a folder of files of one byte, spread evenly over the classes, and lists it as `convert` does, in a
process of its own: names, sizes, layout, classes and the order of writing, without opening a file. The
first listing reads directories from the disk, so the second one counts.
"""

import os
import subprocess
import sys
import tempfile

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError

FLAGS = flags.FlagValues()
flags.DEFINE_integer("files", 1_000_000, "Number of files.", flag_values=FLAGS)
flags.DEFINE_integer("classes", 40_000, "Number of class directories.", flag_values=FLAGS)
flags.DEFINE_string(
    "scratch", None, "Folder for the files, which are deleted again; by default a temporary folder.",
    flag_values=FLAGS,
)  # fmt: skip

_LIST = """
import resource, sys, time
from tfrecords_tools.listing import folder
before = time.process_time()
listing = folder.scan(sys.argv[1])
seconds = time.process_time() - before
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
classes = len(listing.axes["category"])
print(f"{len(listing):,} files, {classes:,} classes: {seconds:.1f} processor seconds, {megabytes:.0f} MiB")
"""


def main(options: flags.FlagValues) -> None:
    """Writes the folder, and prints what listing it takes, twice."""
    if not 1 <= options.classes <= options.files:
        raise UsageError(f"--classes must be 1 to --files, not {options.classes}")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        _write(scratch, options.files, options.classes)
        for _ in range(2):
            subprocess.run([sys.executable, "-c", _LIST, scratch], check=True)


def _write(folder: str, files: int, classes: int) -> None:
    bounds = [number * files // classes for number in range(classes + 1)]
    for number in range(classes):
        directory = f"{folder}/class_{number:06d}"
        os.mkdir(directory)  # noqa: PTH102, pathlib is slow for a million
        for image in range(bounds[number], bounds[number + 1]):
            file = os.open(f"{directory}/{image:07d}.jpg", os.O_CREAT | os.O_WRONLY)
            os.write(file, b"x")
            os.close(file)


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.benchmark_listing"))
