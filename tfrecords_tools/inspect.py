"""Shows what shards contain: images per split and label, sizes, disk use.

    python -m tfrecords_tools.inspect --data_dir=SHARDS

It also draws a contact sheet, a PNG, for each split and combination of labels.
"""

import csv
import os
import pathlib
import sys

from absl import flags

from tfrecords_tools import cli, host_cpus, progress, terminal
from tfrecords_tools.atomic import published
from tfrecords_tools.checking import contact_sheets, duplicates, hashing
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import cell_counts, storage
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.images import description, signatures
from tfrecords_tools.progress import counted

FLAGS = flags.FlagValues()
USUAL = {
    "Contact sheets": ("data_dir", "sheet_dir", "per_sheet"),
    "Duplicates": ("duplicates", "duplicate_distance", "duplicates_csv", "workers"),
}
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS)
flags.DEFINE_string(
    "sheet_dir",
    None,
    "Folder for the contact sheets; by default --data_dir followed by -sheets.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "per_sheet", 36, "Number of images per contact sheet; 0 for no sheets.", flag_values=FLAGS
)
flags.DEFINE_boolean(
    "duplicates", False, "Search for duplicate images within and across splits.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "duplicate_distance",
    duplicates.DISTANCE,
    "Images whose 64-bit perceptual hashes differ in at most this many bits are near duplicates; -1 finds "
    "exact copies only.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "duplicates_csv",
    None,
    "CSV file for the list of all duplicates, with the columns group, split, key and labels.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "workers", 0, "Number of worker processes for --duplicates; 0 for one per core.", flag_values=FLAGS
)


def main(options: flags.FlagValues) -> None:
    """Prints the tables and draws the sheets."""
    if not options.data_dir:
        raise UsageError("--data_dir is missing; set it to a folder of shards")
    if not 0 <= options.per_sheet <= 10_000:
        raise UsageError(f"--per_sheet must be 0 to 10,000 images, not {options.per_sheet}")
    if not 0 <= options.workers <= 1024:
        raise UsageError(f"--workers must be 1 to 1024, or 0 for one per core, not {options.workers}")
    duplicates.require_distance(options.duplicate_distance)
    for name in ("duplicate_distance", "duplicates_csv", "workers"):
        if options[name].present and not options.duplicates:
            raise UsageError(f"--{name} needs --duplicates")
    if options.duplicates_csv:
        _require_place(options.duplicates_csv, options.data_dir)
    manifest = manifests.load(options.data_dir)
    _tables(manifest, options.data_dir)
    if options.duplicates:
        _duplicates(manifest, options)
    if options.per_sheet:
        if storage.is_remote(options.data_dir) and not options.sheet_dir:
            raise UsageError(
                "a remote --data_dir needs --sheet_dir=FOLDER for the contact sheets, or --per_sheet=0"
            )
        sheet_dir = options.sheet_dir or options.data_dir.rstrip("/") + "-sheets"
        if os.path.realpath(sheet_dir) == os.path.realpath(options.data_dir):
            raise UsageError("--sheet_dir must not be --data_dir, which holds shards only")
        with progress.Progress("drawing contact sheets", unit="sheets") as bar:
            sheets = contact_sheets.draw_sheets(
                manifest, options.data_dir, sheet_dir, per_sheet=options.per_sheet, on_progress=bar.update
            )
        print(f"{counted(len(sheets), 'contact sheet')} in {sheet_dir}")
        for name, split in manifest.splits.items():
            if len(split.cells) > contact_sheets.MOST_SHEETS:
                print(
                    f"  {name}: only for the {contact_sheets.MOST_SHEETS} largest of {len(split.cells):,} "
                    "combinations of labels"
                )


def _require_place(duplicates_csv: str, data_dir: str) -> None:
    """Raises UsageError, before images are compared for hours, where the list cannot be written."""
    signatures.require_no_image(duplicates_csv, "duplicates_csv")
    folder = pathlib.Path(duplicates_csv).parent
    if os.path.realpath(folder) == os.path.realpath(data_dir):
        raise UsageError("--duplicates_csv must not be in --data_dir, which holds shards only")
    if not folder.is_dir():
        raise UsageError(f"--duplicates_csv={duplicates_csv}: there is no folder {folder}; make it first")


def _duplicates(manifest: manifests.Manifest, options: flags.FlagValues) -> None:
    with progress.Progress("hashing", total=sum(split.records for split in manifest.splits.values())) as bar:
        hashes, names = hashing.of_folder(
            manifest,
            options.data_dir,
            processes=options.workers or host_cpus.available(),
            on_progress=lambda images, size, failed: bar.update(images),
        )
    exact = duplicates.report(duplicates.groups(hashes, -1), names)
    print(f"exact duplicates: {exact.summary}")
    shown = exact
    if options.duplicate_distance >= 0:
        shown = duplicates.report(duplicates.groups(hashes, options.duplicate_distance), names)
        print(f"within {options.duplicate_distance} bits of 64: {shown.summary}")
    _groups(shown.leaks, "across splits")
    if shown.contradicting:
        groups = counted(len(shown.contradicting), "group")
        images = counted(sum(map(len, shown.contradicting)), "image")
        print(f"duplicates with different labels: {groups} ({images})")
        _groups(shown.contradicting, "with different labels")
    if options.duplicates_csv:
        with published(options.duplicates_csv) as file:
            table = csv.writer(file)
            table.writerow(("group", "split", "key", "labels"))
            for number, members in enumerate(shown.leaks + shown.within):
                for image in members:
                    labels = terminal.word_cell(image.labels)
                    table.writerow((number, image.split, terminal.path_cell(image.key), labels))


def _groups(groups: list[list[hashing.StoredImage]], kind: str) -> None:
    for members in groups[:20]:
        line = " = ".join(f"{image.split}: {image.key} ({image.labels})" for image in members[:4])
        print("  " + terminal.escaped(line))
    if len(groups) > 20:
        print(f"  and {len(groups) - 20:,} more {kind}; --duplicates_csv has all")


def _tables(manifest: manifests.Manifest, data_dir: str) -> None:
    print(f"{manifest.name} in {data_dir}")
    for axis, names in manifest.axes.items():
        print(f"  {axis}: {cell_counts.names_line(names)}")
    print(f"  {'split':<12} {'labels':<32} {'images':>12} {'mean kB':>10}")
    for name, split in manifest.splits.items():
        cells = contact_sheets.cells(manifest, data_dir, name)
        means = {cell: f"{mean / 1e3:>10,.1f}" for cell, (_, mean) in cells.items()}
        for shown, images in cell_counts.shown({cell: count for cell, (count, _) in cells.items()}):
            print(f"  {name:<12} {shown:<32} {images:>12} {means.get(shown, '')}".rstrip())
        print(f"  {name:<12} {'all':<32} {split.records:>12,}   in {counted(len(split.shards), 'shard')}")
    total = sum(manifest.image_sizes.values())
    sizes = ", ".join(f"{size} {count / total:.1%}" for size, count in list(manifest.image_sizes.items())[:5])
    print(f"  sizes (height x width), {len(manifest.image_sizes):,} in all: {sizes}")
    print(f"  encodings: {', '.join(f'{name} {count:,}' for name, count in manifest.encodings.items())}")
    for reason, count in manifest.reencoded.items():
        print(f"  {description.stored(reason)}: {count:,}")
    print(f"  rejected: {manifest.rejected:,}; other files: {manifest.skipped or 0:,}")
    shards = sum(part.bytes for split in manifest.splits.values() for part in split.shards)
    store = storage.open_folder(data_dir)
    disk = sum(store.size(name) or 0 for name in store.names())
    print(f"  disk: {disk / 1e6:,.1f} MB, of which the shards are {shards / 1e6:,.1f} MB")


def entry() -> int:
    """The console script."""
    return cli.run(main, FLAGS, name="tfrecords_tools.inspect", usual=USUAL, usage="--data_dir=SHARDS")


if __name__ == "__main__":
    sys.exit(entry())
