"""The flags of `convert` -> the options of the modules that do its work, all of them checked."""

import os

from absl import flags

from tfrecords_tools.checking import duplicates
from tfrecords_tools.errors import UsageError
from tfrecords_tools.images import encoding_options, rgb
from tfrecords_tools.listing import choice, label_file, splitting
from tfrecords_tools.sources import labelled, opening
from tfrecords_tools.writing import conversion_flags, planning, slices


def require(flag_values: flags.FlagValues) -> None:
    """Raises UsageError for values that are out of range or do not go together."""
    for name, meaning in {"input_dir": "a folder of images", "output_dir": "a folder for the shards"}.items():
        if not flag_values[name].value:
            raise UsageError(f"--{name} is missing; set it to {meaning}")
    paths = (flag_values.input_dir, flag_values.output_dir)
    source, target = (path.rstrip("/") if "://" in path else os.path.realpath(path) for path in paths)
    in_folder = opening.describe(flag_values.input_dir).kind == "folder"
    if in_folder and (target == source or target.startswith(source + os.sep)):
        raise UsageError("--output_dir must lie outside --input_dir, where shards would count as input")
    label_file_options(flag_values)  # they check themselves
    image_choice(flag_values)
    if not 0 <= flag_values.workers <= 1024:
        raise UsageError(f"--workers must be 1 to 1024, or 0 for one per core, not {flag_values.workers}")
    if flag_values.repair and (flag_values.append or flag_values.dry_run):
        raise UsageError("--repair cannot be combined with --append or --dry_run")
    if flag_values.slice:
        slices.Slice.parse(flag_values.slice)
        if flag_values.repair or flag_values.runner != "local":
            raise UsageError("--slice cannot be combined with --repair or --runner=beam")
    if flag_values.beam_options and flag_values.runner != "beam":
        raise UsageError("--beam_options needs --runner=beam")
    duplicates.require_distance(flag_values.duplicate_distance)
    if flag_values.split:
        splitting.Shares(flag_values.split, flag_values.group)  # it checks itself
    elif flag_values.group:
        raise UsageError("--group needs --split: it says which images must stay in one split")
    if not 0 <= flag_values.max_rejected <= 1:
        raise UsageError(f"--max_rejected must be a share, 0 to 1, not {flag_values.max_rejected}")
    if not (flag_values.append or flag_values.repair):  # whose flags are those of the folder
        _require_used(flag_values)


def _require_used(flag_values: flags.FlagValues) -> None:
    """Raises UsageError for a flag that nothing would use."""
    for name, is_used, needed in (
        ("quality", flag_values.encoding == "jpeg", "--encoding=jpeg"),
        ("fit", flag_values.image_size, "--image_size"),
        ("duplicate_distance", flag_values.drop_duplicates != "none", "--drop_duplicates=across_splits"),
    ):
        if flag_values[name].value != flag_values[name].default and not is_used:
            raise UsageError(f"--{name} has no effect without {needed}; add it, or leave --{name} out")


def options(flag_values: flags.FlagValues) -> planning.Options:
    """The options that decide the bytes of the shards. Raises UsageError for a value out of range."""
    name = flag_values.name
    return planning.Options(
        name=name if name is not None else planning.clean_name(opening.default_name(flag_values.input_dir)),
        encoding=encoding_options.EncodingOptions(
            encoding=flag_values.encoding,
            image_size=flag_values.image_size,
            fit=flag_values.fit,
            quality=flag_values.quality,
            max_pixels=flag_values.max_pixels,
            pixels=rgb.PixelOptions(flag_values.alpha, flag_values.depth, flag_values.damaged),
        ),
        shard_mb=flag_values.shard_mb,
        num_shards=flag_values.num_shards,
        seed=flag_values.seed,
        split=flag_values.split,
        group=flag_values.group,
        drop_duplicates=flag_values.drop_duplicates,
        duplicate_distance=flag_values.duplicate_distance,
        input_flags={
            name: flag_values[name].value
            for name in conversion_flags.DECIDE_INPUT
            if flag_values[name].value != flag_values[name].default
        },
    )


def label_file_options(flag_values: flags.FlagValues) -> label_file.LabelFileOptions:
    """How CSV files with labels are read. Raises UsageError for a wrong value."""
    return label_file.LabelFileOptions(
        file=flag_values.metadata and flag_values.metadata.removeprefix("./"),
        path_column=flag_values.path_column,
        label_columns=labelled.label_columns(flag_values.label_columns),
        base_dir=flag_values.base_dir,
        path_suffix=flag_values.path_suffix,
        encoding=flag_values.metadata_encoding,
        missing=flag_values.missing,
    )


def image_choice(flag_values: flags.FlagValues) -> choice.Choice:
    """Which images are taken, and how classes are called. Raises UsageError and DataError."""
    patterns, paths = choice.parse_exclude(flag_values.exclude)
    return choice.Choice(
        include=choice.parse_patterns(flag_values.include),
        exclude=patterns,
        excluded=paths,
        merge=choice.parse_merge(flag_values.merge.split(";") if flag_values.merge else ()),
        order=flag_values.class_order,
    )
