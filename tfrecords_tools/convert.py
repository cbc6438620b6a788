"""Converts a folder of images to indexed TFRecord shards.

    python -m tfrecords_tools.convert --input_dir=IMAGES --output_dir=SHARDS

Every image is decoded completely before it is stored; the ones that are
rejected are listed with reasons in SHARDS/rejected.csv. After an interruption
the same command resumes, and writes the same bytes.
"""

import dataclasses
import pathlib
import sys
import time

import numpy as np
from absl import flags

from tfrecords_tools import cli, host_cpus, progress
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import records, storage
from tfrecords_tools.listing import candidates, folder
from tfrecords_tools.listing.listing import Listing, require_all_classes, require_all_splits
from tfrecords_tools.progress import counted
from tfrecords_tools.sources import opening
from tfrecords_tools.writing import (
    conversion_flags,
    conversion_options,
    curation,
    ownership,
    planning,
    repair,
    slices,
    summary,
    writer,
)

FLAGS = flags.FlagValues()
conversion_flags.define(FLAGS)


def main(options: flags.FlagValues) -> None:
    """Lists the images, plans the shards, writes them, and prints a summary."""
    listing, chosen, base = _listed(options)
    if options.repair:
        _repair(listing, chosen, options)
    elif (plan := _planned(listing, chosen, options, base)) is not None:
        _carry_out(plan, options)
    if not options.slice:  # else other machines may read the copies of its images
        opening.close(listing.source)


def planned(options: flags.FlagValues) -> planning.Plan:
    """The plan of a conversion, of which nothing is written yet. See `planning.plan` for its arguments.

    Raises:
      UsageError, DataError: as the command.
    """
    listing, chosen, base = _listed(options)
    plan = _planned(listing, chosen, options, base)
    if plan is None:
        raise DataError(f"{options.output_dir} has all images of {options.input_dir}: nothing to append")
    return plan


def _listed(options: flags.FlagValues) -> tuple[Listing, planning.Options, manifests.Manifest | None]:
    """The images, in the splits that they get; the options; and the manifest to which this appends."""
    conversion_options.require(options)
    chosen = conversion_options.options(options)
    base = manifests.load(options.output_dir) if options.append else None
    if not (base or options.repair or options.dry_run):
        ownership.require_new_or_ours(options.output_dir)
    chosen = _as_before(chosen, options.output_dir)
    with progress.Progress("listing", unit="files") as bar:
        listing = folder.scan(
            options.input_dir,
            layout=str(base.options["layout"]) if base and options.layout is None else options.layout,
            labels=conversion_options.label_file_options(options),
            choice=conversion_options.image_choice(options),
            seed=options.seed,
            allow_missing_classes=bool(options.split) or _incomplete(options),
            axes=base.axes if base else None,
            spool_folder=_spool_folder(options),
            on_progress=bar.update,
        )
    for key, reason in listing.rejected:
        if reason.startswith("unreadable directory"):  # it may hold any number of images
            print(f"{options.input_dir}/{records.key_shown(key)}: {reason}; skipped", file=sys.stderr)
    for line in filter(None, (candidates.system_line(listing.system), *listing.notes)):
        print(line, flush=True)
    if base:
        repair.require_same_options(options.output_dir, base, listing, chosen)
    return listing, chosen, base


def _spool_folder(options: flags.FlagValues) -> str | None:
    """Where a source may keep copies of images until the conversion is done; None for a temporary folder."""
    remote = storage.is_remote(options.output_dir)
    return None if remote or options.dry_run else str(pathlib.Path(options.output_dir, storage.WORK))


def _planned(
    listing: Listing, chosen: planning.Options, options: flags.FlagValues, base: manifests.Manifest | None
) -> planning.Plan | None:
    """The plan; None when there is nothing to append."""
    count = len(listing)
    if base:
        listing = repair.fresh(listing, options.output_dir, base)
    listing = _curate(listing, chosen, options, base)
    if not len(listing):
        images = counted(count, "image")
        print(f"{options.output_dir} has all of {options.input_dir} ({images}): nothing to append")
        return None
    plan = planning.plan(listing, chosen, base=base)
    images, shards = counted(len(plan.listing), "image"), counted(len(plan.files), "shard")
    layout = listing.layout.template or "flat"
    print(
        f"{images} in {options.input_dir}, layout {layout}, to {shards} in {options.output_dir}", flush=True
    )
    return plan


def _carry_out(plan: planning.Plan, options: flags.FlagValues) -> None:
    if options.dry_run:
        summary.show_plan(plan)
    elif options.slice:
        _write_slice(plan, slices.Slice.parse(options.slice), options)
    else:
        summary.show_result(_write(plan, options), options.output_dir)


def _incomplete(options: flags.FlagValues) -> bool:
    """Whether a split may lack a class: it is allowed, or this run only adds to a folder."""
    return options.allow_missing_classes or options.append or options.repair


def _curate(
    listing: Listing, chosen: planning.Options, options: flags.FlagValues, base: manifests.Manifest | None
) -> Listing:
    """Makes splits and drops duplicates, according to the flags."""
    processes = _processes(options)
    if chosen.split and len(listing):
        every_class = _first_conversion(listing, chosen, options)
        listing = curation.make_splits(listing, chosen, processes=processes, every_class=every_class)
        if not options.append and not options.repair:
            require_all_splits(listing)
    if chosen.drop_duplicates != "none" and len(listing) and not _appended_to(options):
        appended_to = (base, options.output_dir) if base else None
        listing = curation.drop_duplicates(listing, chosen, appended_to, processes=processes)
    if not _incomplete(options):
        require_all_classes(listing)
    return listing


def _as_before(chosen: planning.Options, output_dir: str) -> planning.Options:
    """The options, with the rules of the version that wrote the folder, or began to."""
    version = ownership.plan_version(output_dir)
    if version is None:
        return chosen
    turned = "jpeg" if version >= planning.PLAN_VERSION else "png"
    encoding = dataclasses.replace(chosen.encoding, turned=turned)
    return dataclasses.replace(chosen, plan_version=version, encoding=encoding)


def _first_conversion(
    listing: Listing, chosen: planning.Options, options: flags.FlagValues
) -> np.ndarray | None:
    """[n] bool: the images of the first conversion, of each of whose classes every split gets an image.

    None for a folder of an earlier version, and for images to append.
    """
    if chosen.plan_version < 2 or options.append:
        return None
    if _appended_to(options):
        return repair.is_member(listing, options.output_dir, generation=0)
    return np.ones(len(listing), bool)


def _appended_to(options: flags.FlagValues) -> bool:
    """Whether this repairs a folder that was appended to; its own lists say which images were left out."""
    return options.repair and len(manifests.load(options.output_dir, shards=False).generations) > 1


def _repair(listing: Listing, chosen: planning.Options, options: flags.FlagValues) -> None:
    listing = _curate(listing, chosen, options, None)
    with progress.Progress("rebuilding") as bar:
        manifest, rebuilt = repair.repair(
            listing,
            chosen,
            options.output_dir,
            processes=_processes(options),
            on_progress=lambda images, size, rejected: bar.update(images),
        )
    for name in rebuilt:
        print(f"  rebuilt {name}")
    result = f"{counted(len(rebuilt), 'file')} rebuilt" if rebuilt else "sound, nothing to rebuild"
    print(f"{options.output_dir}: {result}")
    print(f"next: {cli.command_line('tfrecords_tools.verify', [f'--data_dir={options.output_dir}'])}")


def _processes(options: flags.FlagValues) -> int:
    return options.workers or host_cpus.available()


def _write_slice(plan: planning.Plan, part: slices.Slice, options: flags.FlagValues) -> None:
    with progress.Progress(
        "converting", total=sum(len(job.images) for job in plan.jobs(set(part.files(plan))))
    ) as bar:
        done = slices.write(
            plan,
            options.output_dir,
            part,
            processes=_processes(options),
            on_progress=lambda images, size, rejected: bar.update(images, f"{rejected:,} rejected"),
        )
    if done.complete:
        print(f"{options.output_dir} is complete already")
        return
    written = counted(done.written, "shard")
    print(
        f"slice {options.slice}: {written} written, {done.earlier} were there already; when "
        f"all slices are done, run the same command without --slice, which completes {options.output_dir}"
    )


def _write(plan: planning.Plan, options: flags.FlagValues) -> writer.Written:
    earlier, start = 0, time.monotonic()
    with progress.Progress("converting", total=len(plan.listing)) as bar:

        def on_resume(shards: int, images: int) -> None:
            nonlocal earlier
            earlier = images
            bar.start_from(images)
            print(
                f"resuming after {counted(shards, 'finished shard')} ({counted(images, 'image')})", flush=True
            )

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
    return cli.run(
        main,
        FLAGS,
        name="tfrecords_tools.convert",
        usual=conversion_flags.USUAL,
        further=conversion_flags.FURTHER,
        usage="--input_dir=IMAGES --output_dir=SHARDS",
    )


if __name__ == "__main__":
    sys.exit(entry())
