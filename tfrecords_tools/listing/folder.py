"""An image folder -> a listing: every image's key, size, split and labels."""

from collections.abc import Callable

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage
from tfrecords_tools.listing import layout as layouts
from tfrecords_tools.listing import metadata as metadata_file
from tfrecords_tools.listing.layout import Layout
from tfrecords_tools.listing.listing import Listing, require_all_classes
from tfrecords_tools.listing.table import Table
from tfrecords_tools.listing.walk import METADATA, Walk


def scan(
    folder: str,
    *,
    layout: str | None = None,
    metadata: str | None = None,
    seed: int = 0,
    allow_missing_classes: bool = False,
    axes: dict[str, tuple[str, ...]] | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Listing:
    """Lists an image folder.

    Args:
      folder: its path.
      layout: a template such as "{split}/{authenticity}/{category}"; None detects it.
      metadata: name of a CSV file in the folder; None reads metadata.csv when there is one,
        "" reads none.
      seed: of the order of writing.
      allow_missing_classes: let a labelled split lack images of some class.
      axes: label maps to use, of a folder that this is to be added to; None makes them.
      on_progress: called with the number of files found so far, now and then.

    Raises:
      DataError: no such folder, no images, no layout, a contradiction, a missing class.
    """
    store = storage.open_folder(folder)
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
