"""A part of a conversion's shards, written without a lock, by one of several machines that share the output.

Each machine plans alone, from the same images and flags to the same plan, and writes every N-th shard. None
writes the manifest: a conversion without slices fills gaps and publishes it. Slices may run at once, twice,
and be killed anywhere: shards are published by rename, and two writers of one shard write the same bytes.
"""

import dataclasses
import re
from typing import NamedTuple

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import storage
from tfrecords_tools.writing import ownership, shard, shard_report, writer
from tfrecords_tools.writing.planning import Plan


@dataclasses.dataclass(frozen=True)
class Slice:
    """Part `index` of `count`, from 0 on."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Reads "0/4". Raises UsageError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match or int(match[1]) >= int(match[2]):
            raise UsageError(f"--slice must be I/N with I from 0 to N - 1, such as 0/4, not {text!r}")
        return cls(int(match[1]), int(match[2]))

    def files(self, plan: Plan) -> list[str]:
        """The shards of this slice."""
        return plan.files[self.index :: self.count]


class WrittenSlice(NamedTuple):
    """What a slice has done.

    Attributes:
      written: shards that this run wrote.
      earlier: shards of the slice that were there already.
      complete: whether the folder has its manifest, so that nothing was left to do.
    """

    written: int
    earlier: int
    complete: bool = False


def write(
    plan: Plan,
    output_dir: str,
    part: Slice,
    *,
    processes: int,
    on_progress: shard.Progress = lambda images, size, rejected: None,
) -> WrittenSlice:
    """Writes the shards of one slice that are not there yet.

    Args:
      plan: the plan of the whole conversion.
      output_dir: the folder that all slices share.
      part: which slice.
      processes: how many processes write shards at once.
      on_progress: called with (images, bytes, rejected) done by this run.

    Raises:
      DataError: the folder holds another conversion, or another machine began one from other images or flags.
    """
    target = storage.open_folder(output_dir)
    files = part.files(plan)
    if writer.finished(target, plan) is not None:
        return WrittenSlice(0, len(files), complete=True)
    ownership.require_ours(target, plan)
    ownership.claim(target, plan)
    todo = {file for file in files if shard_report.read(target, file, plan.sha256) is None}
    try:
        writer.run(plan, output_dir, plan.jobs(todo), min(processes, len(todo)), on_progress)
    except DataError:
        if writer.finished(target, plan) is None:
            raise
    if writer.finished(target, plan) is not None:  # a conversion without slices filled the gaps meanwhile
        return WrittenSlice(0, len(files), complete=True)
    try:
        ownership.require_ours(target, plan)
    except DataError as error:  # it began at the same moment
        raise DataError(f"{error}; another slice has listed other images or was given other flags") from error
    return WrittenSlice(len(todo), len(files) - len(todo))
