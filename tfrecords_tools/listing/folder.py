"""An image folder -> a listing: every image's key, size, split and labels."""

from collections.abc import Callable, Mapping

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.listing import layout as layouts
from tfrecords_tools.listing import metadata as metadata_file
from tfrecords_tools.listing.layout import Layout
from tfrecords_tools.listing.listing import Listing, require_all_classes
from tfrecords_tools.listing.table import Table
from tfrecords_tools.listing.walk import METADATA, Walk
from tfrecords_tools.sources import opening
from tfrecords_tools.sources.labelled import Labelled


def scan(
    folder: str,
    *,
    layout: str | None = None,
    metadata: str | None = None,
    seed: int = 0,
    allow_missing_classes: bool = False,
    axes: dict[str, tuple[str, ...]] | None = None,
    label_columns: Mapping[str, str] | None = None,
    spool_folder: str | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Listing:
    """Lists an image folder, or another source of images.

    Args:
      folder: its path, or what `sources.opening.open_source` takes.
      layout: a template such as "{split}/{authenticity}/{category}"; None detects it.
      metadata: name of a CSV file in the folder; None reads metadata.csv when there is one,
        "" reads none.
      seed: of the order of writing.
      allow_missing_classes: let a labelled split lack images of some class.
      axes: label maps to use, of a folder that this is to be added to; None makes them.
      label_columns: axis -> column, for sources with columns.
      spool_folder: where images are copied to that can only be read in order.
      on_progress: called with the number of files found so far, now and then.

    Raises:
      DataError: no such folder, no images, no layout, a contradiction, a missing class.
    """
    store = opening.open_source(folder, label_columns=label_columns, spool_folder=spool_folder)
    if isinstance(store, Labelled):
        if layout not in (None, store.layout):
            raise UsageError(
                f"--layout={layout}: {folder} says itself which labels an image has, {store.layout}; leave "
                "--layout away"
            )
        layout = store.layout
    if not store.exists():
        raise DataError(f"{folder}: there is no such folder; --input_dir names a folder of images")
    name = METADATA if metadata is None else metadata
    walk = Walk(store, name, seed, on_progress)
    if not len(walk.rows):
        raise DataError(_nothing(folder, walk))
    chosen = Layout(layout) if layout is not None else layouts.detect(walk.counts())
    table = Table(walk, chosen, folder)
    if name and store.size(name) is not None:
        metadata_file.read(table, store.read(name), f"{folder}/{name}", seed)
    elif metadata:
        raise DataError(f"{folder}/{name}: there is no such file; --metadata names a CSV file in --input_dir")
    listing = table.finish(axes)
    if not allow_missing_classes:
        table.require_images_of_each_class()
        require_all_classes(listing)
    return listing


def _nothing(folder: str, walk: Walk) -> str:
    others = walk.rejected + walk.skipped
    if not others:
        return f"{folder}: the folder is empty; --input_dir names a folder of images"
    shown = f"{records.key_text(others[0][0])} ({others[0][1]})"
    return f"{folder}: no images in it, only {len(others)} other files, such as {shown}"
