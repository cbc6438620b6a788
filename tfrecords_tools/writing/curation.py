"""A listing -> what is to be planned: splits made where there are none, duplicates dropped."""

import dataclasses

import numpy as np

from tfrecords_tools import progress
from tfrecords_tools.checking import duplicates
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.listing import splitting
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.writing.planning import Options


def make_splits(listing: Listing, options: Options, *, processes: int) -> Listing:
    """Gives every image a split, as `options.split` says."""
    shares, content = splitting.Shares(options.split, options.group), None
    if not options.group:
        with progress.Progress("hashing", total=len(listing)) as bar:
            content = duplicates.of_listing(
                listing,
                perceptual=False,
                processes=processes,
                on_progress=lambda images, size, failed: bar.update(images),
            ).content
    return splitting.assign(listing, shares, content, options.seed)


def drop_duplicates(
    listing: Listing, options: Options, held: tuple[Manifest, str] | None, *, processes: int
) -> Listing:
    """Leaves out what other splits have too, of the listing and of the shards to append to.

    Args:
      listing: with splits; of an appending conversion the new images.
      options: of the conversion.
      held: manifest and folder of the shards that are there already, or None. They stay as they are: an
        image that another split of theirs has is dropped, whatever its own split.
      processes: how many hash images at once.
    """
    near = options.duplicate_distance >= 0
    with progress.Progress("looking for duplicates", total=len(listing)) as bar:
        hashes = duplicates.of_listing(
            listing,
            perceptual=near,
            processes=processes,
            # The bytes as they would be stored, to compare with those that are.
            recipe=options.recipe if held else None,
            on_progress=lambda images, size, failed: bar.update(images),
        )
    names: list[tuple[str, str]] = []
    if held:
        whole, data_dir = held
        total = sum(split.records for split in whole.splits.values())
        with progress.Progress("hashing the shards", total=total) as bar:
            there, names = duplicates.of_folder(
                whole,
                data_dir,
                processes=processes,
                perceptual=near,
                on_progress=lambda images, size, failed: bar.update(images),
            )
        both = zip(dataclasses.astuple(hashes), dataclasses.astuple(there), strict=True)
        hashes = duplicates.Hashes(*map(np.concatenate, both))
    group = duplicates.groups(hashes, options.duplicate_distance)
    kept = duplicates.across_splits(listing, group, names)
    print(f"dropped {len(listing) - len(kept):,} images that other splits have too", flush=True)
    return kept
