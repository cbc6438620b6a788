"""The flags of the commands that read shards, one for each of `ReadOptions`' fields. No TensorFlow."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from absl import flags

from tfrecords_tools.errors import UsageError

if TYPE_CHECKING:
    from deepduel.reading.options import ReadOptions

_SIZES = ("host_size", "fit", "native_resolution")
NAMES = (
    "reader",
    "threads",
    "on_error",
    "fast_decode",
    "sampling",
    "cache",
    "remote_cache",
    "data_workers",
    *_SIZES,
)


def define(
    flag_values: flags.FlagValues,
    names: Collection[str] = NAMES,
    *,
    on_error: str = "fail",
    cache_help: str = "",
) -> None:
    """Defines the flags in `names`.

    Args:
      names: some of NAMES; a command leaves out the flags whose values come from a finished run.
      on_error: default of --on_error.
      cache_help: what --cache also takes in this command, in a sentence.
    """
    unknown = set(names) - set(NAMES)
    if unknown:
        raise ValueError(f"names must be some of {', '.join(NAMES)}, got {', '.join(sorted(unknown))}")
    if "reader" in names:
        flags.DEFINE_enum(
            "reader", "random", ["random", "sequential"],
            "random reads records by number, in a true global shuffle. sequential streams the shards, for "
            "data on slow disks that do not fit into memory.", flag_values=flag_values)  # fmt: skip
    if "threads" in names:
        flags.DEFINE_integer(
            "threads", 0,
            "Number of processes that decode" + " (threads with --reader=sequential)" * ("reader" in names)
            + "; 0 for one per core.",
            lower_bound=0, flag_values=flag_values)  # fmt: skip
    if "on_error" in names:
        flags.DEFINE_enum(
            "on_error", on_error, ["fail", "skip"],
            "What to do with an image that cannot be decoded: fail (stop and name it) or skip (leave it out, "
            "report and count it).", flag_values=flag_values)  # fmt: skip
    if "fast_decode" in names:
        flags.DEFINE_bool(
            "fast_decode", False, "Decode JPEGs approximately, which is up to a tenth faster.",
            flag_values=flag_values)  # fmt: skip
    if "sampling" in names:
        flags.DEFINE_string(
            "sampling", "uniform",
            "How often an epoch visits each image: uniform (once), balanced (every combination of labels "
            "equally often), balanced:AXIS, or weighted:AXIS:NAME=2,OTHER=1.",
            flag_values=flag_values)  # fmt: skip
    if "cache" in names:
        text = (
            "Cache of decoded images, filled during the first epoch: none, ram, or decoded:FOLDER, which "
            "later runs and other processes use too."
        )
        flags.DEFINE_string("cache", "none", f"{text} {cache_help}".strip(), flag_values=flag_values)
    if "remote_cache" in names:
        flags.DEFINE_string(
            "remote_cache", "auto",
            "Local copy of shards in an object store, for --reader=random: auto (a temporary file of at most "
            "half the free space of the temporary folder), FOLDER:SIZE such as /scratch/blocks:200GB, which "
            "later runs and other processes use too, ram:SIZE, or none (one request per image).",
            flag_values=flag_values)  # fmt: skip
    if "data_workers" in names:
        flags.DEFINE_list(
            "data_workers", [],
            "HOST:PORT of processes of deepduel.data_service, separated by commas, which read and decode the "
            "images on their machines; each takes a part of every batch, and the batches stay the same.",
            flag_values=flag_values)  # fmt: skip
    if set(_SIZES) & set(names):
        _define_sizes(flag_values, names)


def _define_sizes(flag_values: flags.FlagValues, names: Collection[str]) -> None:
    if "host_size" in names:
        flags.DEFINE_integer(
            "host_size", 0, "Size in pixels to which the CPU resizes images when the data set has mixed "
            "sizes; 0: the largest image_size. Images of one size are not resized.",
            lower_bound=0, flag_values=flag_values)  # fmt: skip
    if "fit" in names:
        flags.DEFINE_enum(
            "fit", "crop", ["crop", "pad"],
            "How the CPU resizes images of other aspect ratios: crop cuts off what does not fit, pad adds "
            "black borders.",
            flag_values=flag_values)  # fmt: skip
    if "native_resolution" in names:
        flags.DEFINE_bool(
            "native_resolution", False,
            "Do not resize images, but cut image_size x image_size pixels out of each, at random for "
            "training and in the centre for evaluation; smaller images are mirrored at their edges. Needs "
            "--augmentation=forensic, robust or none.",
            flag_values=flag_values)  # fmt: skip


def build(
    options: flags.FlagValues,
    *,
    batch_size: int,
    size: tuple[int, int] | None = None,
    **values: Any,
) -> ReadOptions:
    """The parsed flags as ReadOptions; fields whose flags the command does not define keep their defaults.

    Args:
      batch_size: images per batch.
      size: (height, width) in pixels when --host_size is 0 or not defined.
      values: fields of ReadOptions that replace those of the flags, or come from a finished run.

    Raises:
      UsageError: values that contradict one another.
    """
    from deepduel.reading.options import ReadOptions

    fields: dict[str, Any] = {
        name: options[name].value
        for name in ("reader", "on_error", "fast_decode", "sampling", "cache", "remote_cache", "fit")
        if name in options
    }
    if "data_workers" in options:
        fields["data_workers"] = tuple(options.data_workers)
    if "threads" in options:
        fields["threads"] = options.threads or None
    side = options.host_size if "host_size" in options else 0
    if "native_resolution" in options and options.native_resolution:
        if side or fields.get("fit", "crop") != "crop":
            raise UsageError(
                "--native_resolution cuts --image_size pixels out of each image and resizes nothing; "
                "leave --host_size and --fit out"
            )
        fields["fit"] = "native"
    if side:
        size = side, side
    reading = ReadOptions(batch_size=batch_size, size=size, **(fields | values))
    reading.check_equal_parts()
    return reading
