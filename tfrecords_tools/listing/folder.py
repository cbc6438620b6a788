"""An image folder -> a listing: every image's key, size, split and labels."""

import os
import posixpath
from collections.abc import Callable, Iterable

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.listing import layout as layouts
from tfrecords_tools.listing import metadata
from tfrecords_tools.listing.choice import Choice
from tfrecords_tools.listing.label_file import FILE_NAME, LabelFile, LabelFileOptions
from tfrecords_tools.listing.layout import Layout
from tfrecords_tools.listing.listing import Listing, require_all_classes
from tfrecords_tools.listing.table import Table
from tfrecords_tools.listing.walk import Walk
from tfrecords_tools.progress import counted
from tfrecords_tools.sources import opening
from tfrecords_tools.sources.labelled import Labelled


def scan(
    folder: str,
    *,
    layout: str | None = None,
    labels: LabelFileOptions | None = None,
    choice: Choice | None = None,
    seed: int = 0,
    allow_missing_classes: bool = False,
    axes: dict[str, tuple[str, ...]] | None = None,
    spool_folder: str | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Listing:
    """Lists an image folder, or another source of images.

    Args:
      folder: its path, or what `sources.opening.open_source` takes.
      layout: a template such as "{split}/{authenticity}/{category}"; None detects it.
      labels: how CSV files with labels are read; `label_columns` are also for sources with columns.
      choice: which images are taken, and how classes are called and numbered; None takes all.
      seed: of the order of writing.
      allow_missing_classes: let a labelled split lack images of some class.
      axes: label maps to use, of a folder that this is to be added to; None makes them.
      spool_folder: where images are copied to that can only be read in order.
      on_progress: called with the number of files found so far, now and then.

    Raises:
      DataError: no such folder, no images, no layout, a contradiction, a missing class.
    """
    labels, choice = labels or LabelFileOptions(), choice or Choice()
    store = opening.open_source(folder, label_columns=labels.label_columns, spool_folder=spool_folder)
    if isinstance(store, Labelled):
        _require_own_labels(store, folder, layout, labels)
        layout = store.layout
    if not store.exists():
        raise DataError(_no_folder(folder))
    walk = Walk(store, labels.file, seed, choice, on_progress)
    if not len(walk.rows):
        raise DataError(_nothing(folder, walk))
    stated_layout = Layout(layout) if layout is not None else None
    files = [] if isinstance(store, Labelled) else _label_files(walk, folder, labels, stated_layout)
    table = Table(walk, stated_layout or _detect(walk, files, labels, choice), folder, choice)
    notes = [note for file in files for note in file.notes]
    if files:
        notes += metadata.apply(table, files, labels, seed)
    if choice.excluded:
        notes.append(choice.excluded_line([records.key_text(key) for key, _ in walk.skipped]))
    notes += choice.unused_lines(
        map(walk.key, range(len(walk.rows))), [key for key, _ in walk.skipped], table.label_names()
    )
    table.choose_by_label()
    listing = table.finish(axes)
    listing.notes[:0] = notes
    if not allow_missing_classes:
        table.require_images_of_each_class()
        require_all_classes(listing)
    return listing


def _require_own_labels(store: Labelled, folder: str, layout: str | None, labels: LabelFileOptions) -> None:
    """Raises UsageError where labels are to come from directories or files, and the source has its own."""
    if layout not in (None, store.layout):
        raise UsageError(
            f"--layout={layout}: {folder} says itself which labels an image has, {store.layout}; remove "
            "--layout"
        )
    if labels != LabelFileOptions(label_columns=labels.label_columns):
        raise UsageError(
            f"--metadata, --path_column and the like are for folders and archives; {folder} has its own "
            "labels, which --label_columns names"
        )


def _label_files(
    walk: Walk, folder: str, options: LabelFileOptions, layout: Layout | None
) -> list[LabelFile]:
    """The CSV files to read: the one that is named, else each metadata.csv, as Hugging Face's loaders do."""
    directories = _names_of_directories(walk, layout)
    if options.file is not None:
        paths = [options.file] if options.file else []
    else:
        paths = [os.fsdecode(key) for key in walk.tables]
    if not paths and options != LabelFileOptions(file=options.file):
        raise DataError(
            f"{folder}: there is no {FILE_NAME} for --path_column, --label_columns and the like; name a CSV "
            "file in --input_dir with --metadata"
        )
    files = []
    for path in paths:
        if walk.source.size(path) is None:
            raise DataError(
                f"{folder}/{path}: there is no such file; --metadata names a CSV file in --input_dir, by its "
                "path from there"
            )
        base = path.rpartition("/")[0] if options.base_dir is None else options.base_dir
        base = posixpath.normpath(base).strip("/")
        data = walk.source.read(path)
        base = "" if base in ("", ".") else f"{base}/"
        files.append(LabelFile(data, f"{folder}/{path}", base, options, directories))
    return files


def _names_of_directories(walk: Walk, layout: Layout | None) -> dict[str, set[str]]:
    """The label axes that directories give, and their names on each."""
    counts = walk.counts()
    try:
        layout = layout or layouts.detect(counts)
    except DataError:
        return {}
    return {axis: _names(layout, axis, counts) for axis in layout.axes}


def _names(layout: Layout, axis: str, folders: Iterable[layouts.Folder]) -> set[str]:
    return {values[axis] for folder in folders if (values := layout.match(folder)) and axis in values}


def _detect(walk: Walk, files: list[LabelFile], options: LabelFileOptions, choice: Choice) -> Layout:
    """The layout of the directories; where CSV files give the labels, directories need not."""
    supplied = set().union(*(file.axes for file in files)) - {layouts.SPLIT}
    counts = walk.counts()
    try:
        layout = layouts.detect(counts)
    except DataError:
        if not supplied:
            raise
        return layouts.detect_splits(counts)
    if options.label_columns:
        return layouts.detect_splits(counts)
    parts = list(layout.parts)
    for axis in supplied & set(layout.axes):
        position = parts.index(f"{{{axis}}}")
        names = _names(layout, axis, counts)
        in_files = set().union(*(file.values(axis) for file in files if axis in file.axes))
        if axis == layouts.AUTHENTICITY or names & in_files:
            continue
        parts[position] = "*"  # images/, part_1/: directories that are no labels
    return Layout("/".join(parts))


def _no_folder(path: str) -> str:
    if not os.path.lexists(path):
        return f"{path}: there is no such folder; --input_dir names a folder of images"
    return (
        f"{path}: a file, and no folder or archive that is read ({', '.join(opening.ARCHIVE_ENDINGS)}); "
        "unpack another kind of archive first, and name the folder of images"
    )


def _nothing(folder: str, walk: Walk) -> str:
    others = walk.rejected + walk.skipped
    if not others:
        return f"{folder}: the folder is empty; --input_dir names a folder of images"
    shown = f"{records.key_shown(others[0][0])} ({others[0][1]})"
    return f"{folder}: no images in it, only {counted(len(others), 'other file')}, such as {shown}"
