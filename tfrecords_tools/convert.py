"""Converts a folder of images to indexed TFRecord shards.

    python -m tfrecords_tools.convert --input_dir=IMAGES --output_dir=SHARDS

Every image is decoded completely before it is stored; the ones that are
rejected are listed with reasons in SHARDS/rejected.csv. After an interruption
the same command resumes, and writes the same bytes.
"""

import os
import sys
import time

from absl import flags

from tfrecords_tools import cli, progress
from tfrecords_tools.checking import duplicates
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import records
from tfrecords_tools.images import encoding_options
from tfrecords_tools.listing import folder, splitting
from tfrecords_tools.listing.listing import Listing, require_all_classes
from tfrecords_tools.writing import curation, planning, repair, summary, writer

FLAGS = flags.FlagValues()
USUAL = {
    "Input": ("input_dir", "layout", "metadata", "split"),
    "Output": ("output_dir", "encoding", "image_size", "fit", "quality"),
    "Run": ("dry_run", "append", "repair", "workers"),
}
FURTHER = {
    "Input": (
        "group", "drop_duplicates", "duplicate_distance", "max_pixels", "max_rejected",
        "allow_missing_classes",
    ),
    "Output": ("name", "shard_mb", "num_shards", "seed"),
    "Run": ("runner", "beam_options"),
}  # fmt: skip
_TEXT = (
    ("input_dir", None, "Folder of images."),
    (
        "output_dir",
        None,
        "Folder for the shards: new, empty, or the output of an interrupted conversion, which is resumed.",
    ),
    (
        "layout",
        None,
        "What each level of directories means, from the top: {split}, {authenticity}, {category} or any "
        "other label axis, * for any directory, or a fixed name. Detected by default.",
    ),
    (
        "metadata",
        None,
        "CSV file in --input_dir with the columns image_path, label (0 real, 1 fake), class, or label axes. "
        "By default metadata.csv where it exists; --metadata= reads none.",
    ),
    (
        "split",
        "",
        "Splits to make in a folder that has none, and their shares, such as "
        "train:0.7,validation:0.25,test:0.05. Each image is placed by a hash of its content.",
    ),
    (
        "group",
        "",
        "With --split: images for which this text is equal stay in one split. It is made of {stem}, {name}, "
        "{parent}, {key} and the label axes; '{stem:.8}' is the first 8 letters of the file name.",
    ),
    (
        "beam_options",
        "",
        "With --runner=beam: options of Apache Beam, such as '--runner=DirectRunner --direct_num_workers=2'.",
    ),
    ("name", None, "Name of the data set; by default the input folder's name."),
)
_NUMBERS = (
    (
        "image_size",
        0,
        "Height and width in pixels to which images are resized before they are stored; 0 keeps their sizes.",
    ),
    ("quality", 95, "JPEG quality for --encoding=jpeg, 1 to 100."),
    (
        "max_pixels",
        encoding_options.MAX_PIXELS,
        "Images with more pixels are rejected without being decoded.",
    ),
    ("shard_mb", 128, "Maximum size of a shard in megabytes."),
    ("num_shards", 0, "Number of shards per split; 0 derives it from --shard_mb."),
    ("workers", 0, "Number of worker processes; 0 for one per core."),
    ("seed", 0, "Random seed for the order of images in the shards and for --split."),
    (
        "duplicate_distance",
        duplicates.DISTANCE,
        "Images whose 64-bit perceptual hashes differ in at most this many bits are near duplicates; "
        "-1 finds exact copies only.",
    ),
)
for _name, _default, _help in _TEXT:
    flags.DEFINE_string(_name, _default, _help, flag_values=FLAGS)
for _name, _number, _help in _NUMBERS:
    flags.DEFINE_integer(_name, _number, _help, flag_values=FLAGS)
flags.DEFINE_enum(
    "encoding",
    "keep",
    encoding_options.ENCODINGS,
    "How images are stored: keep copies the bytes of files that decode to upright RGB and stores the others "
    "as PNG; jpeg, png and raw encode every image.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "fit",
    "resize",
    encoding_options.FITS,
    "How images of other aspect ratios are resized to --image_size: resize stretches them, crop cuts out the "
    "centre, pad adds black borders.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "runner",
    "local",
    ("local", "beam"),
    "What writes the shards: local processes, or beam for Apache Beam (pip install 'deepduel[beam]'), which "
    "writes the same bytes.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "drop_duplicates",
    "none",
    ("none", "across_splits"),
    "across_splits keeps an image that occurs in several splits in test, else in validation, and removes it "
    "from the other splits.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_rejected", 0.01, "Highest share of images that may be rejected, 0 to 1.", flag_values=FLAGS
)
flags.DEFINE_boolean("dry_run", False, "Print what would be written, and write nothing.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "append",
    False,
    "Write the images that are new in --input_dir as additional shards of --output_dir.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "repair", False, "Rebuild only the damaged files of --output_dir from the images.", flag_values=FLAGS
)
flags.DEFINE_boolean(
    "allow_missing_classes",
    False,
    "Accept a split without images of some class, also when all of its images were rejected.",
    flag_values=FLAGS,
)


def main(options: flags.FlagValues) -> None:
    """Scans, plans, writes, and says what came out."""
    _require(options)
    chosen = planning.Options(
        name=options.name if options.name is not None else planning.clean_name(options.input_dir),
        encoding=encoding_options.EncodingOptions(
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
    base = manifests.load(options.output_dir) if options.append else None
    with progress.Progress("listing", unit="files") as bar:
        listing = folder.scan(
            options.input_dir,
            layout=str(base.options["layout"]) if base and options.layout is None else options.layout,
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


def _curate(
    listing: Listing, chosen: planning.Options, options: flags.FlagValues, base: manifests.Manifest | None
) -> Listing:
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
    return options.repair and len(manifests.load(options.output_dir, shards=False).generations) > 1


def _repair(listing: folder.Listing, chosen: planning.Options, options: flags.FlagValues) -> None:
    with progress.Progress("rebuilding") as bar:
        manifest, mended = repair.repair(
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
            print(f"resuming after {shards} finished shards ({images:,} images)", flush=True)

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
    return cli.run(main, FLAGS, name="tfrecords_tools.convert", usual=USUAL, further=FURTHER)


if __name__ == "__main__":
    sys.exit(entry())
