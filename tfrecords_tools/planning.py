"""A conversion as jobs, one per shard, for engines that call a function on many machines.

    conversion = plan(input_dir="IMAGES", output_dir="SHARDS", num_shards=8)
    for job in conversion.jobs():  # anywhere, in any order, as often as an engine likes
        conversion.write(job)
    conversion.finish()

Input and output must be reachable from every machine under the same names: a shared file system, or URLs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from absl import flags

from tfrecords_tools import convert, workers
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import storage
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.writing import conversion_flags, ownership, shard, shard_report, writer
from tfrecords_tools.writing.planning import Job, Plan

__all__ = ["Conversion", "Job", "plan"]


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is to be written, and where.

    Attributes:
      output_dir: the folder of shards.
      shards: the plan: which image goes into which shard.
    """

    output_dir: str
    shards: Plan
    _options: flags.FlagValues

    def jobs(self) -> list[Job]:
        """The shards that are not there yet, longest first. A job lists its images, and can be pickled."""
        target = storage.open_folder(self.output_dir)
        if writer.finished(target, self.shards) is not None:
            return []
        files = self.shards.files
        todo = {file for file in files if shard_report.read(target, file, self.shards.sha256) is None}
        return list(self.shards.jobs(todo))

    @property
    def write(self) -> Callable[[Job], str]:
        """A function that writes one shard and returns its name; it can be pickled. Raises DataError."""
        return functools.partial(_write, shard.ShardContext.of(self.shards, self.output_dir))

    def finish(self) -> Manifest:
        """Writes the shards that are still missing, in this process, and publishes the manifest.

        Raises:
          DataError: too many images are rejected, or a split lost a class; see the flags of `convert`.
        """
        return writer.write(
            self.shards,
            self.output_dir,
            processes=1,
            max_rejected=self._options.max_rejected,
            allow_missing_classes=self._options.allow_missing_classes or self._options.append,
        ).manifest


def plan(**options: Any) -> Conversion:
    """Lists the images and plans the shards.

    Args:
      **options: the flags of `tfrecords_tools.convert` by name, `input_dir` and `output_dir` among them.

    Returns:
      The conversion. Its folder exists and belongs to this plan, but has no shard yet.

    Raises:
      UsageError: an option is unknown or out of range.
      DataError: the images cannot be converted, or the folder holds another conversion.

    Examples:
      >>> conversion = plan(input_dir="IMAGES", output_dir="PLANNED", num_shards=2)
      >>> names = [conversion.write(job) for job in conversion.jobs()]
      >>> sorted(conversion.finish().splits)
      ['test', 'train', 'validation']
    """
    values = flags.FlagValues()
    conversion_flags.define(values)
    for name in ("repair", "dry_run", "slice", "runner", "beam_options", "workers"):
        if name in options:
            raise UsageError(f"{name} is an option of the command only")
    try:
        values(["plan", *(f"--{name}={_text(value)}" for name, value in options.items())])
    except flags.Error as error:
        raise UsageError(str(error)) from None
    shards = convert.planned(values)
    target = storage.open_folder(values.output_dir)
    if writer.finished(target, shards) is None:
        ownership.require_ours(target, shards)
        ownership.claim(target, shards)
    return Conversion(values.output_dir, shards, values)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _write(context: shard.ShardContext, job: Job) -> str:
    shard.write(context, job, workers.Counts([0, 0, 0]))
    return job.file
