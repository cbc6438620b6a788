"""Prints a plan, and the result of a conversion."""

from collections.abc import Mapping

import numpy as np

from tfrecords_tools import cli, progress
from tfrecords_tools.format import cell_counts
from tfrecords_tools.format.manifest import cell_name
from tfrecords_tools.images import description, image
from tfrecords_tools.progress import counted
from tfrecords_tools.writing import rejection
from tfrecords_tools.writing.planning import Plan
from tfrecords_tools.writing.writer import Written


def show_plan(plan: Plan) -> None:
    """Prints the plan of a dry run."""
    listing = plan.listing
    for split, order in plan.order.items():
        size = int(listing.rows["size"][order].sum())
        images, shards = counted(len(order), "image"), counted(len(plan.shards[split]), "shard")
        print(f"  {split}: {images}, {shards}, {size / 1e6:,.1f} MB of files")
        cells, counts = np.unique(listing.labels[order], axis=0, return_counts=True)
        by_name = [cell_name(listing.axes, cell) for cell in cells.tolist()]
        _show_cells(dict(zip(by_name, counts.tolist(), strict=True)))
    for axis, names in listing.axes.items():
        print(f"  labels of {axis}: {cell_counts.names_line(names)}")
    print(f"  rejected so far: {len(listing.rejected):,}; files left out: {len(listing.skipped):,}")
    print("dry run: nothing was written")


def _show_cells(counts: Mapping[str, int]) -> None:
    for name, count in cell_counts.shown(counts):
        print(f"    {name}: {count}")


def show_result(written: Written, output_dir: str) -> None:
    """Prints what a finished folder holds, and how long the conversion took."""
    manifest, seconds = written.manifest, written.seconds
    if not seconds:
        print(f"{output_dir} already holds exactly this conversion: nothing to do")
    images = size = 0
    for name, split in manifest.splits.items():
        split_bytes = sum(shard.bytes for shard in split.shards)
        images, size = images + split.records, size + split_bytes
        shards = counted(len(split.shards), "shard")
        print(f"  {name}: {counted(split.records, 'image')}, {shards}, {split_bytes / 1e6:,.1f} MB")
        _show_cells(split.cells)
    for reason, count in manifest.reencoded.items():
        print(f"  {description.stored(reason)}: {count:,}")
    dark = sum(count for reason, count in manifest.reencoded.items() if reason.endswith(image.DARK))
    if dark:
        print(
            f"  warning: {counted(dark, 'image')} with at most {image.FEW_BITS} of 16 bits used, "
            f"which are stored dark; --depth=0:{2**image.FEW_BITS - 1} scales such values to 0..255"
        )
    if manifest.rejected:
        print(f"  rejected images: {manifest.rejected:,}, see {output_dir}/{rejection.FILE_NAME}")
    if manifest.skipped:
        print(f"  files left out: {manifest.skipped:,}, see {output_dir}/{rejection.SKIPPED_FILE}")
    rate = ""
    if seconds:
        part = "" if written.images == images else f", {written.images:,} of them by this run,"
        speed = progress.per_second(written.images / seconds)
        rate = f"{part} in {progress.duration(seconds)} ({speed} images/s)"
    print(f"{counted(images, 'image')}, {size / 1e6:,.1f} MB in {output_dir}{rate}")
    print(f"next: {cli.command_line('tfrecords_tools.inspect', [f'--data_dir={output_dir}'])}")
