"""Converts a folder of images to indexed TFRecord shards, once.

    python -m tfrecords_tools.convert --input_dir=IMAGES --output_dir=SHARDS

Every image is decoded in full before it enters; what cannot enter is listed in
SHARDS/rejected.csv. Interrupted, the same command goes on where it was, to the same bytes.
"""

import os
import sys
import time

from absl import flags

from tfrecords_tools import cli, progress
from tfrecords_tools.checking import duplicates
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest, records
from tfrecords_tools.images import encoding_options
from tfrecords_tools.listing import folder, splitting
from tfrecords_tools.listing.listing import Listing, require_all_classes
from tfrecords_tools.writing import curation, planning, repair, summary, writer

FLAGS = flags.FlagValues()
_TEXT = (
    ("input_dir", None, "Folder of images."),
    ("output_dir", None, "Folder for the shards: new, empty, or left by an interrupted run."),
    (
        "layout",
        None,
        "What the directories mean, from the top: {split}, {authenticity}, {category} or any other axis, "
        "* for any, or a fixed name. Default: detected.",
    ),
    (
        "metadata",
        None,
        "CSV file in --input_dir with image_path, label (0 real, 1 fake), class, or axes. "
        "Default: metadata.csv if there; empty: none.",
    ),
    (
        "split",
        "",
        "For folders without splits: train:0.7,validation:0.25,test:0.05, by a hash of each image's content.",
    ),
    (
        "group",
        "",
        "With --split: what must stay together, of {stem}, {name}, {parent}, {key} and the label axes; "
        "'{stem:.8}' is the first 8 letters.",
    ),
    (
        "beam_options",
        "",
        "With --runner=beam: Beam's own options, '--runner=DirectRunner --direct_num_workers=2'.",
    ),
    ("name", None, "Of the data set. Default: the input folder's name."),
)
_NUMBERS = (
    ("image_size", 0, "Side in pixels of stored images; 0 leaves sizes alone."),
    ("quality", 95, "Of --encoding=jpeg, 1 to 100."),
    ("max_pixels", encoding_options.MAX_PIXELS, "Larger images are rejected undecoded."),
    ("shard_mb", 128, "Size of a shard at most, in megabytes."),
    ("num_shards", 0, "Shards per split; 0 follows --shard_mb."),
    ("workers", 0, "Processes; 0 takes one per core."),
    ("seed", 0, "Of the order of images in the shards, and of --split."),
    (
        "duplicate_distance",
        duplicates.DISTANCE,
        "Bits of 64 in which near duplicates differ; -1: exact only.",
    ),
)
for _name, _default, _help in _TEXT:
    flags.DEFINE_string(_name, _default, _help, flag_values=FLAGS)
for _name, _default, _help in _NUMBERS:
    flags.DEFINE_integer(_name, _default, _help, flag_values=FLAGS)
flags.DEFINE_enum(
    "encoding",
    "keep",
    encoding_options.ENCODINGS,
    "keep: the files' own bytes where they decode to upright RGB, else PNG; "
    "or every image as jpeg, png or raw.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "fit",
    "resize",
    encoding_options.FITS,
    "How images get --image_size: resize ignores aspect, crop cuts the centre, pad adds black.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "runner",
    "local",
    ("local", "beam"),
    "beam: Apache Beam writes the shards, to the same bytes (pip install 'deepduel[beam]').",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "drop_duplicates",
    "none",
    ("none", "across_splits"),
    "across_splits: a picture that is in several splits stays in test, else validation, never in train.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_rejected", 0.01, "Share of the images that may be rejected, 0 to 1.", flag_values=FLAGS
)
flags.DEFINE_boolean("dry_run", False, "Print the plan and write nothing.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "append", False, "Write what is new in --input_dir as further shards of --output_dir.", flag_values=FLAGS
)
flags.DEFINE_boolean(
    "repair", False, "Rebuild the damaged files of --output_dir, and only these.", flag_values=FLAGS
)
flags.DEFINE_boolean(
    "allow_missing_classes",
    False,
    "Let a split have no image of some class, or, once the damaged are rejected, none at all.",
    flag_values=FLAGS,
)


def main(options: flags.FlagValues) -> None:
    """Scans, plans, writes, and says what came out."""
    _require(options)
    chosen = planning.Options(
        name=options.name if options.name is not None else planning.clean_name(options.input_dir),
        recipe=encoding_options.EncodingOptions(
            options.encoding, options.image_size, options.fit, options.quality, options.max_pixels
        ),
        shard_mb=options.shard_mb,
        num_shards=options.num_shards,
        seed=options.seed,
        split=options.split,
        group=options.group,
        drop_duplicates=options.drop_duplicates,
        duplicate_distance=options.duplicate_distance,
    )
    base = manifest.load(options.output_dir) if options.append else None
    with progress.Progress("listing", unit="files") as bar:
        listing = folder.scan(
            options.input_dir,
            layout=base.options["layout"] if base and options.layout is None else options.layout,
            metadata=options.metadata,
            seed=options.seed,
            allow_missing_classes=bool(options.split) or _incomplete(options),
            axes=base.axes if base else None,
            on_progress=bar.update,
        )
    for key, reason in listing.rejected:
        if reason.startswith(
            "unreadable directory"
        ):  # one line of rejected.csv for who knows how many images
            print(f"{options.input_dir}/{records.key_text(key)}: {reason}, left out", file=sys.stderr)
    count = len(listing)
    if base:
        repair.require_same_options(options.output_dir, base, listing, chosen)
        listing = repair.fresh(listing, options.output_dir, base)
    listing = _curate(listing, chosen, options, base)
    if options.repair:
        _repair(listing, chosen, options)
        return
    if not len(listing):
        print(f"{options.output_dir} has all {count:,} images of {options.input_dir}: nothing to append")
        return
    plan = planning.plan(listing, chosen, base=base)
    print(
        f"{len(plan.listing):,} images in {options.input_dir}, layout {listing.layout.template or 'flat'}, "
        f"to {len(plan.files)} shards in {options.output_dir}",
        flush=True,
    )
    if options.dry_run:
        summary.show_plan(plan)
        return
    summary.show_result(_write(plan, options), options.output_dir)


def _incomplete(options: flags.FlagValues) -> bool:
    """Whether a split may lack a class: it was allowed, or is none of this run's business."""
    return options.allow_missing_classes or options.append or options.repair


def _curate(listing: Listing, chosen: planning.Options, options: flags.FlagValues, base) -> Listing:
    """Makes splits and drops duplicates, as asked for."""
    processes = _processes(options)
    if chosen.split and len(listing):
        listing = curation.make_splits(listing, chosen, processes=processes)
    if chosen.drop_duplicates != "none" and len(listing) and not _appended_to(options):
        held = (base, options.output_dir) if base else None
        listing = curation.drop_duplicates(listing, chosen, held, processes=processes)
    if not _incomplete(options):
        require_all_classes(listing)
    return listing


def _appended_to(options: flags.FlagValues) -> bool:
    """Whether this repairs a folder whose own lists tell which images were left out, and when."""
    return options.repair and len(manifest.load(options.output_dir, shards=False).generations) > 1


def _repair(listing: folder.Listing, chosen: planning.Options, options: flags.FlagValues) -> None:
    with progress.Progress("rebuilding") as bar:
        whole, mended = repair.repair(
            listing,
            chosen,
            options.output_dir,
            processes=_processes(options),
            on_progress=lambda images, size, rejected: bar.update(images),
        )
    for name in mended:
        print(f"  rebuilt {name}")
    print(
        f"{options.output_dir}: {f'{len(mended)} files rebuilt' if mended else 'sound, nothing to rebuild'}"
    )
    print(f"next: python -m tfrecords_tools.verify --data_dir={options.output_dir}")


def _processes(options: flags.FlagValues) -> int:
    return options.workers or len(os.sched_getaffinity(0))


def _require(options: flags.FlagValues) -> None:
    for name in ("input_dir", "output_dir"):
        if not options[name].value:
            raise UsageError(f"--{name} is needed")
    paths = (options.input_dir, options.output_dir)
    source, target = (path.rstrip("/") if "://" in path else os.path.realpath(path) for path in paths)
    if target == source or target.startswith(source + os.sep):
        raise UsageError("--output_dir must lie outside --input_dir: shards are no images")
    if not 0 <= options.workers <= 1024:
        raise UsageError(f"--workers is 1 to 1024, or 0 for one per core, not {options.workers}")
    if options.repair and (options.append or options.dry_run):
        raise UsageError("--repair goes with neither --append nor --dry_run")
    if options.beam_options and options.runner != "beam":
        raise UsageError("--beam_options go with --runner=beam")
    duplicates.require_distance(options.duplicate_distance)
    if options.split:
        splitting.Shares(options.split, options.group)  # it checks itself
    elif options.group:
        raise UsageError("--group goes with --split: it says what no split may tear apart")
    if not 0 <= options.max_rejected <= 1:
        raise UsageError(f"--max_rejected is a share, 0 to 1, not {options.max_rejected}")


def _write(plan: planning.Plan, options: flags.FlagValues) -> writer.Written:
    earlier, start = 0, time.monotonic()
    with progress.Progress("converting", total=len(plan.listing)) as bar:

        def on_resume(shards: int, images: int) -> None:
            nonlocal earlier
            earlier = images
            bar.start_from(images)
            print(f"going on after {shards} finished shards ({images:,} images)", flush=True)

        def on_progress(images: int, size: int, rejected: int) -> None:
            rate = size / 1e6 / max(time.monotonic() - start, 1e-9)
            bar.update(earlier + images, f"{rate:,.1f} MB/s, {rejected:,} rejected")

        return writer.write(
            plan,
            options.output_dir,
            processes=_processes(options),
            max_rejected=options.max_rejected,
            allow_missing_classes=_incomplete(options),
            beam_options=options.beam_options if options.runner == "beam" else None,
            on_progress=on_progress,
            on_resume=on_resume,
        )


def entry() -> int:
    """The console script."""
    return cli.run(main, FLAGS, name="tfrecords_tools.convert")


if __name__ == "__main__":
    sys.exit(entry())
