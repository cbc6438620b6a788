"""The settings of a run as flags: what differs between two flagfiles, and what may when a run is resumed.

A run is resumed exactly, so a flag that decides its result keeps its value. The flags in MAY_CHANGE do not
decide it, or their change is recorded.
"""

import re
from typing import NamedTuple

from deepduel.augmentation import flags as augmentation_flags
from deepduel.runs import task_flags
from tfrecords_tools.errors import UsageError

MAY_CHANGE = {  # flag: why. docs/training.md has this table
    "data_dir": "The shards may lie elsewhere. Their content must be the same.",
    "workdir": "The folder of the run may have been moved or renamed.",
    "weights": "The file may lie elsewhere. Its content must be the same.",
    "epochs": "The run becomes longer or shorter; a schedule that spans it continues on its new length.",
    "learning_rate": "Takes effect at the step at which the run is resumed.",
    "max_minutes": "Length of this session.",
    "save_every": "How often the state is saved.",
    "keep_epochs": "How many epochs' models are kept.",
    "micro_batch": "Micro-batches add up to the same gradients. If batch-norm statistics are trained, they "
    "depend on its size, which then cannot change.",
    "jit_compile": "XLA computes the same up to rounding. If a backbone with random layers (dropout, "
    "stochastic depth) is trained, they draw other random numbers afterwards.",
    "devices": "Devices share a batch and add up to the same gradients.",
    "threads": "Number of decoding processes.",
    "cache": "Decoded pixels are the same from any cache. A run on features stays on features, but their "
    "folder may change.",
    "remote_cache": "Local copy of the shards.",
    "data_workers": "The batches are the same from any number of data workers.",
    "on_error": "Concerns only images that cannot be decoded.",
    "profile_steps": "Steps of this session to trace.",
    "dry_run": "Writes nothing.",
    "find_learning_rate": "Changes nothing in the run.",
}
_COMMENT = re.compile(r"# augmentation of [^:]+")


class Change(NamedTuple):
    """A flag with other values than before, as one would type them."""

    flag: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.before or f'no --{self.flag}'} before, {self.after or f'no --{self.flag}'} now"


def changes(before: str, after: str, defaults: str, axes: list[str]) -> list[Change]:
    """The flags whose effective values differ between two flagfiles.

    Args:
      before, after: the flagfiles.
      defaults: the flagfile of all defaults: an earlier version did not know every flag, and a flag that the
        first file does not name had its default.
      axes: label axes of the tasks, to which the values of flags per task are resolved.
    """
    default = _lines(defaults)
    first, second = default | _lines(before), default | _lines(after)
    # A file of an earlier version may lack the comments with the augmentation's parameters.
    names = [name for name in sorted(first | second) if name in first or not name.startswith("#")]
    if any(name.startswith("#") for name in first):  # the comments say all about the augmentation
        names = [name for name in names if name not in ("augmentation", *augmentation_flags.NAMES)]
    return [
        Change(name, " ".join(first.get(name, ())), " ".join(second.get(name, ())))
        for name in names
        if _effective(name, first.get(name, []), axes) != _effective(name, second.get(name, []), axes)
    ]


def may_change(change: Change) -> bool:
    """Whether a begun run accepts the change."""
    if change.flag == "cache":  # features show other images, and other epochs, than pixels do
        return ("=features" in change.before) == ("=features" in change.after)
    if change.flag == "weights":
        return not any(re.search(r"=(auto|none|imagenet)( |$)", text) for text in change[1:] if text)
    return change.flag in MAY_CHANGE


def _lines(text: str) -> dict[str, list[str]]:
    """{flag: its lines}; and {"# augmentation of TASK": its line}, the parameters when the run was begun."""
    lines: dict[str, list[str]] = {}
    for line in map(str.strip, text.splitlines()):
        match = re.match(r"--(\w+)=", line)
        comment = _COMMENT.match(line)
        if match:
            lines.setdefault(match[1], []).append(line)
        elif comment:
            lines[comment[0]] = [line]
    return lines


def _effective(name: str, lines: list[str], axes: list[str]) -> object:
    """What the lines of one flag amount to."""
    if name.startswith("#"):
        return lines
    values = [line.partition("=")[2] for line in lines]
    if name == "tasks":
        return values[-1:] or [",".join(axes)]
    if name not in task_flags.NAMES and name not in augmentation_flags.NAMES:
        return [_number(value) for value in values[-1:]]
    try:
        resolved = task_flags.per_task(name, values, axes, required=False)
    except UsageError:  # it names a task that is not trained: then --tasks differs too
        return values
    return {axis: _number(value) for axis, value in resolved.items()}


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
