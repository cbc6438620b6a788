"""A listing -> a plan: which image goes into which shard, fixed before the first one is written.

A plan is made of keys and file sizes alone, so that it is the same whatever the number of
workers, and again after an interruption.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfrecords_tools.errors import UsageError
from tfrecords_tools.format.manifest import Manifest, shard_name
from tfrecords_tools.images.encoding_options import KEEP, EncodingOptions
from tfrecords_tools.images.rgb import PixelOptions
from tfrecords_tools.listing.listing import Listing

# 1: --split left classes out of a split where chance would have it. 1 and 2: turned JPEGs became PNGs.
PLAN_VERSION = 3
MANY_SHARDS = 8  # of a split, when it has images enough: so that several processes have work
IMAGES_PER_SHARD = 256  # at least, before a small split is cut into several shards


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the shards' bytes, besides the input.

    Attributes:
      name: of the data set, the beginning of each file's name.
      encoding: how images are stored.
      shard_mb: a shard's size at most, in 10**6 bytes, as planned from the files' sizes.
      num_shards: shards per split; 0 leaves it to `shard_mb`.
      seed: of the order of images.
      split, group: how splits were made, see `splitting.Shares`; "" for those of the folder.
      drop_duplicates: "none" or "across_splits".
      duplicate_distance: see `duplicates`.
      input_flags: what decided which images are read, and their labels, where it is not the default.
      plan_version: of the rules by which splits are made and images stored, 1 to 3.
    """

    name: str
    encoding: EncodingOptions = KEEP
    shard_mb: int = 128
    num_shards: int = 0
    seed: int = 0
    split: str = ""
    group: str = ""
    drop_duplicates: str = "none"
    duplicate_distance: int = 4
    plan_version: int = PLAN_VERSION
    input_flags: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or not self.name.isascii():
            raise UsageError(f"--name must be letters, digits and _, with no digit first, not {self.name!r}")
        if not 1 <= self.shard_mb <= 100_000:
            raise UsageError(f"--shard_mb must be 1 to 100,000 megabytes, not {self.shard_mb}")
        if not 0 <= self.num_shards <= 99_999:
            raise UsageError(f"--num_shards must be 1 to 99,999, or 0, not {self.num_shards}")
        if not -(2**63) <= self.seed < 2**63:
            raise UsageError(f"--seed must fit 64 bits, not {self.seed}")


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to be written.

    Attributes:
      file: the shard's name.
      split: its split.
      images: (key, bytes on disk, labels in the order of axes, place in the source), in the order of records.
      sha256: of a shard to be rebuilt, the hex digests that its files have to have; else None.
    """

    file: str
    split: str
    images: list[tuple[bytes, int, tuple[int, ...], int]]
    sha256: dict[str, str] | None = None


@dataclasses.dataclass
class Plan:
    """Which image goes into which shard.

    Attributes:
      listing: the images.
      options: of the conversion.
      base: what the folder holds already, when this appends to it.
      description: options and source as data, to compare runs by.
      shards: per split, file names and the bounds of each in `order`.
      order: per split, indices into the listing.
    """

    listing: Listing
    options: Options
    description: dict
    base: Manifest | None
    shards: dict[str, list[tuple[str, int, int]]]
    order: dict[str, np.ndarray]

    def jobs(self, files: set[str]) -> Iterator[Job]:
        """The jobs of these shards, longest first (a stable order), made as they are asked for."""
        chosen = [
            (split, *shard) for split, shards in self.shards.items() for shard in shards if shard[0] in files
        ]
        for split, file, start, end in sorted(chosen, key=lambda shard: shard[2] - shard[3]):
            yield self.job(split, file, start, end)

    def job(self, split: str, file: str, start: int, end: int) -> Job:
        listing, chosen = self.listing, self.order[split][start:end]
        sizes, places = (listing.rows[column][chosen].tolist() for column in ("size", "place"))
        labels = map(tuple, listing.labels[chosen].tolist())
        keys = [listing.key(index) for index in chosen]
        return Job(file, split, list(zip(keys, sizes, labels, places, strict=True)))

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the description, hex: other bytes of shards, another sum."""
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()

    @property
    def files(self) -> list[str]:
        return [file for shards in self.shards.values() for file, _, _ in shards]


def plan(listing: Listing, options: Options, *, base: Manifest | None = None) -> Plan:
    """Fixes the shards of a conversion.

    Args:
      listing: the images; of an appending conversion the new ones.
      options: of the conversion.
      base: the manifest to which this appends.
    """
    shards, order = {}, {}
    for number, split in enumerate(listing.splits):
        chosen = np.flatnonzero(listing.split == number)
        if not len(chosen):
            continue
        chosen = chosen[np.argsort(listing.rows["order"][chosen], kind="stable")]
        order[split] = chosen
        count = _shard_count(len(chosen), int(listing.rows["size"][chosen].sum()), options)
        bounds = [index * len(chosen) // count for index in range(count + 1)]
        first = len(base.splits[split].shards) if base and split in base.splits else 0
        shards[split] = [
            (shard_name(options.name, split, first + index, first + count), bounds[index], bounds[index + 1])
            for index in range(count)
        ]
    description = {
        **describe_options(listing, options),
        "axes": {axis: list(names) for axis, names in listing.axes.items()},
        "shards": {split: len(files) for split, files in shards.items()},
        "images": len(listing),
        "source": listing.fingerprint(),
        "appends_to": base.source if base else "",
    }
    return Plan(listing, options, description, base, shards, order)


def describe_options(listing: Listing, options: Options) -> dict:
    """What besides the images decides the shards' bytes, as data."""
    fields = dataclasses.asdict(options)
    encoding = fields.pop("encoding")
    encoding.pop("turned")  # the version says it
    input_flags = fields.pop("input_flags")
    first = {"plan_version": fields.pop("plan_version"), "layout": listing.layout.template}
    pixels = encoding.pop("pixels")
    # Options that version 0.1.0 has not are recorded where they are not the default.
    default = dataclasses.asdict(PixelOptions())
    pixels = {name: value for name, value in pixels.items() if value != default[name]}
    return first | fields | encoding | pixels | input_flags


def _shard_count(images: int, size: int, options: Options) -> int:
    if options.num_shards:
        return min(options.num_shards, images)
    encoding = options.encoding
    if encoding.encoding == "raw":
        size = images * encoding.image_size**2 * 3
    by_size = -(-size // (options.shard_mb * 10**6))
    return max(1, min(images, max(by_size, min(MANY_SHARDS, images // IMAGES_PER_SHARD))))


def clean_name(folder: str) -> str:
    """A data set's name from its folder's."""
    base = folder.rstrip("/").rpartition("/")[2] if "://" in folder else pathlib.Path(folder).resolve().name
    name = (
        "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in base)
        .strip("_")
        .lower()
    )
    if not name or name[0].isdigit():
        name = f"images_{name}".rstrip("_")
    return name
