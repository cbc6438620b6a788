"""A listing -> the listing to plan from: splits are made where there are none, and duplicates dropped."""

import dataclasses

import numpy as np

from tfrecords_tools import progress
from tfrecords_tools.checking import duplicates, hashing
from tfrecords_tools.errors import DataError
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.listing import splitting
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.progress import counted
from tfrecords_tools.writing.planning import Options


def make_splits(
    listing: Listing, options: Options, *, processes: int, every_class: np.ndarray | None
) -> Listing:
    """Gives every image a split, as `options.split` says; `every_class` as for `splitting.assign`."""
    shares, content = splitting.Shares(options.split, options.group), None
    if not options.group:
        with progress.Progress("hashing", total=len(listing)) as bar:
            content = hashing.of_listing(
                listing,
                perceptual=False,
                processes=processes,
                on_progress=lambda images, size, failed: bar.update(images),
            ).content
    return splitting.assign(listing, shares, content, options.seed, every_class=every_class)


def drop_duplicates(
    listing: Listing, options: Options, base: tuple[Manifest, str] | None, *, processes: int
) -> Listing:
    """Leaves out images of which another split, or the shards to append to, has a copy.

    Args:
      listing: with splits; of an appending conversion the new images.
      options: of the conversion.
      base: manifest and folder of the shards to append to, or None. They are not changed: an image of
        which another split there has a copy is dropped, whatever its own split.
      processes: number of worker processes.
    """
    near = options.duplicate_distance >= 0
    with progress.Progress("looking for duplicates", total=len(listing)) as bar:
        hashes = hashing.of_listing(
            listing,
            perceptual=near,
            processes=processes,
            # Compared with stored images, so hashed as they would be stored.
            encoding=options.encoding if base else None,
            on_progress=lambda images, size, failed: bar.update(images),
        )
    names: list[hashing.StoredImage] = []
    if base:
        manifest, data_dir = base
        total = sum(split.records for split in manifest.splits.values())
        with progress.Progress("hashing the shards", total=total) as bar:
            stored, names = hashing.of_folder(
                manifest,
                data_dir,
                processes=processes,
                perceptual=near,
                on_progress=lambda images, size, failed: bar.update(images),
            )
        pairs = zip(dataclasses.astuple(hashes), dataclasses.astuple(stored), strict=True)
        hashes = hashing.Hashes(*map(np.concatenate, pairs))
    group = duplicates.groups(hashes, options.duplicate_distance)
    kept = duplicates.across_splits(listing, group, names)
    for number, split in enumerate(listing.splits):
        if not base and (listing.split == number).any() and not (kept.split == number).any():
            raise DataError(
                f"{listing.root}: no image is left in split {split!r}: other splits have duplicates of all "
                "of them; convert without --drop_duplicates, or with a smaller --duplicate_distance"
            )
    print(f"dropped {counted(len(listing) - len(kept), 'image')} that other splits have too", flush=True)
    return kept
