"""Checks a folder of shards: checksums, records, indices, counts and sizes.

    python -m tfrecords_tools.verify --data_dir=SHARDS --decode

The exit code is 0 if everything is sound, 1 if something is damaged, and 2 for
wrong usage. Everything damaged is named by file, record number and key,
followed by the command that rebuilds only the damaged shards.
"""

import sys

from absl import flags

from tfrecords_tools import cli, host_cpus, progress
from tfrecords_tools.checking import audit
from tfrecords_tools.checking.damage import rebuild_command
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.progress import counted

FLAGS = flags.FlagValues()
USUAL = {"Flags": ("data_dir", "decode", "workers")}
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "decode", False, "Also decode every image, which finds damage that checksums cannot.", flag_values=FLAGS
)
flags.DEFINE_integer("workers", 0, "Number of worker processes; 0 for one per core.", flag_values=FLAGS)


def main(options: flags.FlagValues) -> None:
    """Prints each damage; raises when there is one."""
    if not options.data_dir:
        raise UsageError("--data_dir is missing; set it to a folder of shards")
    if not 0 <= options.workers <= 1024:
        raise UsageError(f"--workers must be 1 to 1024, or 0 for one per core, not {options.workers}")
    with progress.Progress("verifying") as bar:
        manifest, damages = audit.audit(
            options.data_dir,
            decode=options.decode,
            processes=options.workers or host_cpus.available(),
            on_progress=lambda images, size, damaged: bar.update(
                images, f"{size / 1e6:,.0f} MB, {damaged:,} damaged"
            ),
        )
    for name in audit.strays(options.data_dir, manifest):
        print(f"{options.data_dir}/{name}: not in the manifest; readers ignore it")
    for damage in damages:
        print(f"{options.data_dir}/{damage}")
    if damages:
        raise DataError(
            f"{options.data_dir}: problems found: {len(damages)}; rebuild only the damaged files with: "
            f"{rebuild_command(manifest, options.data_dir)}"
        )
    count = sum(split.records for split in manifest.splits.values())
    shards = sum(len(split.shards) for split in manifest.splits.values())
    decoded = ", every image decodes" if options.decode else ""
    print(f"{options.data_dir}: sound, {counted(count, 'image')} in {counted(shards, 'shard')}{decoded}")


def entry() -> int:
    """The console script."""
    return cli.run(main, FLAGS, name="tfrecords_tools.verify", usual=USUAL, usage="--data_dir=SHARDS")


if __name__ == "__main__":
    sys.exit(entry())
