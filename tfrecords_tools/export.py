"""Writes the images and labels of shards in the form that other tools read.

    python -m tfrecords_tools.export --data_dir=SHARDS --format=folder --output=IMAGES

The images are the bytes that the shards hold, which are those of the original
files wherever convert kept them. The output appears when it is complete.
"""

import pathlib
import shlex
import sys
from collections.abc import Iterator

from absl import flags

from tfrecords_tools import atomic, cli, progress
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.exporting import image_folder, parquet, stored_images, webdataset
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import storage

FORMATS = ("folder", "webdataset", "parquet")
_SOURCES = {
    "folder": "",
    "webdataset": "tar:",
    "parquet": "parquet:",
}  # before the output in convert's --input
FLAGS = flags.FlagValues()
USUAL = {"Flags": ("data_dir", "format", "output", "shard_mb")}
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS)
flags.DEFINE_enum(
    "format",
    "folder",
    FORMATS,
    "folder writes a file per image, named after its key; webdataset writes tar files, and parquet the files "
    "of a Hugging Face image data set.",
    flag_values=FLAGS,
)
flags.DEFINE_string("output", None, "Folder to write: a new or an empty one.", flag_values=FLAGS)
flags.DEFINE_integer(
    "shard_mb", 500, "Size in megabytes at which a new tar or Parquet file is begun.", flag_values=FLAGS
)


def main(options: flags.FlagValues) -> None:
    """Writes everything beside the output, and renames it."""
    _require(options)
    manifest = manifests.load(options.data_dir)
    output = pathlib.Path(options.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: exists already; name a new or an empty folder with --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    total = sum(split.records for split in manifest.splits.values())
    with atomic.written_beside(output) as partial, progress.Progress("exporting", total=total) as bar:
        partial.mkdir()
        writer = _writer(options, partial, manifest)
        written = 0

        def counted(split: str) -> Iterator[stored_images.StoredImage]:
            nonlocal written
            for image in stored_images.read(manifest, options.data_dir, split):
                yield image
                written += 1
                bar.update(written)

        for split in manifest.splits:
            writer.write(counted(split))
        words = writer.finish()
    print(f"{progress.counted(total, 'image')} in {output}")
    source = shlex.quote(f"{_SOURCES[options.format]}{output}")
    print(f"back to shards: python -m tfrecords_tools.convert --input={source} {words}".rstrip())


def _writer(
    options: flags.FlagValues, folder: pathlib.Path, manifest: manifests.Manifest
) -> image_folder.ImageFolder | webdataset.WebDataset | parquet.Parquet:
    if options.format == "folder":
        return image_folder.ImageFolder(folder, manifest, pathlib.Path(options.output))
    kind = webdataset.WebDataset if options.format == "webdataset" else parquet.Parquet
    return kind(folder, manifest, options.shard_mb * 10**6)


def _require(options: flags.FlagValues) -> None:
    for name, meaning in {"data_dir": "a folder of shards", "output": "a new or an empty folder"}.items():
        if not options[name].value:
            raise UsageError(f"--{name} is missing; set it to {meaning}")
    if storage.is_remote(options.output):
        raise UsageError(
            f"--output={options.output}: must be a folder on this machine, to be copied from there"
        )
    if not 1 <= options.shard_mb <= 100_000:
        raise UsageError(f"--shard_mb must be 1 to 100,000 megabytes, not {options.shard_mb}")


def entry() -> int:
    """The console script."""
    return cli.run(
        main, FLAGS, name="tfrecords_tools.export", usual=USUAL, usage="--data_dir=SHARDS --output=OUTPUT"
    )


if __name__ == "__main__":
    sys.exit(entry())
