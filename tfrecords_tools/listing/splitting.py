"""Splits for folders that have none: a pure function of each image's content, or of its group.

An image's place is a hash of its bytes (of its group's name if grouped), as a number from 0 to 1,
looked up among the splits' shares. So copies of one image stay together, and shares are met on
average, in every class alike. A class of few images that chance left out of a split gets one image
there all the same; otherwise an added image never moves another.
"""

import dataclasses
import hashlib
import pathlib
import string
from collections.abc import Callable

import numpy as np

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.sources.labelled import Labelled

_FIELDS = ("stem", "name", "suffix", "parent", "key")


@dataclasses.dataclass(frozen=True)
class Shares:
    """Splits and their shares.

    Attributes:
      text: as written, "train:0.7,validation:0.25,test:0.05".
      group: a template over {stem}, {name}, {suffix}, {parent}, {key} of the path and the label axes,
        such as "{stem:.8}" (the first 8 letters); "" for no groups.
    """

    text: str
    group: str = ""

    def __post_init__(self) -> None:
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise UsageError(
                f"--split={self.text}: the shares add up to {sum(self.shares.values()):g}, not to 1"
            )
        try:
            self.group_of(b"parent/stem.jpg", {})
        except KeyError as error:
            if error.args[0] in _FIELDS:
                raise
        except (ValueError, IndexError, AttributeError) as error:
            raise UsageError(f"--group={self.group}: not a template such as {{stem}} ({error})") from error

    @property
    def shares(self) -> dict[str, float]:
        """Split -> share."""
        shares = {}
        for part in self.text.split(","):
            name, _, share = part.strip().partition(":")
            try:
                shares[name] = float(share)
            except ValueError:
                shares[name] = -1.0
            if not name.isidentifier() or not name.isascii() or not 0 < shares[name] <= 1:
                raise UsageError(
                    f"--split={self.text}: {part!r} is not name:share, for example train:0.7,validation:0.3"
                )
        if len(shares) != self.text.count(",") + 1:
            raise UsageError(f"--split={self.text}: a split occurs twice")
        return shares

    def group_of(self, key: bytes, labels: dict[str, str]) -> str:
        """The group that a key belongs to. Raises KeyError for an unknown field."""
        path = pathlib.PurePosixPath(records.key_text(key))
        fields = {"stem": path.stem, "name": path.name, "suffix": path.suffix, "parent": str(path.parent),
                  "key": str(path)}  # fmt: skip
        return string.Formatter().vformat(self.group, (), labels | fields)


def _require_one_split(listing: Listing) -> None:
    """Raises DataError when the images have splits that --split would undo."""
    has = f"{listing.root}: has splits already ({', '.join(listing.splits)}); leave --split away, or"
    if isinstance(listing.source, Labelled):  # which says train where it knows no splits
        if len(listing.splits) > 1:
            raise DataError(
                f"{has} name one of them only, such as tfds:NAME:train or 'parquet:data/train-*.parquet'"
            )
    elif listing.layout.has_split or len(listing.splits) > 1:
        raise DataError(
            f"{has} make its first level something else with --layout, for example --layout='*/{{category}}'"
        )


def assign(
    listing: Listing,
    shares: Shares,
    content: np.ndarray | None,
    seed: int,
    *,
    every_class: np.ndarray | None = None,
) -> Listing:
    """Gives every image a split.

    Args:
      listing: of a folder without splits.
      shares: the splits.
      content: [n, 2] uint64 hashes of the images' bytes; None where there are groups.
      seed: another one gives other splits.
      every_class: [n] bool, the images among which each class of enough images gets into each split: where
        chance left a split without one, the image that is nearest to it by its hash moves. None for no image.

    Raises:
      DataError: the folder has splits, or the group template an unknown field.
    """
    _require_one_split(listing)
    names = sorted(shares.shares)
    bounds = np.cumsum([shares.shares[name] for name in names])
    places, identities = np.empty(len(listing)), []
    for index in range(len(listing)):
        if content is None or shares.group:
            identity = _group(listing, index, shares).encode()
        else:
            identity = content[index].tobytes()
        identities.append(identity)
        digest = hashlib.blake2b(
            identity, digest_size=8, key=seed.to_bytes(8, "little", signed=True)
        ).digest()
        places[index] = int.from_bytes(digest, "little") / 2**64
    split = np.minimum(np.searchsorted(bounds, places, side="right"), len(names) - 1).astype(np.int16)
    if every_class is not None:
        _cover_classes(listing.labels, split, places, np.array(identities), bounds, every_class)
    return dataclasses.replace(listing, split=split, splits=tuple(names))


def _cover_classes(
    labels: np.ndarray,
    split: np.ndarray,
    places: np.ndarray,
    identities: np.ndarray,
    bounds: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Moves images, in place, so that each combination of labels is in each split where it has enough images.

    Copies of an image move together, and no image moves that is the last of its class in its split.

    Args:
      labels: [n, axes] of the images.
      split: [n] the splits that the hashes give; changed in place.
      places: [n] the hashes as numbers from 0 to 1.
      identities: [n] what was hashed: equal for images that must stay together.
      bounds: [splits] upper ends of the splits' intervals from 0 to 1.
      chosen: [n] bool, the images that are counted and may move.
    """
    _, cell = np.unique(labels, axis=0, return_inverse=True)
    _, identity = np.unique(identities, return_inverse=True)
    cell = np.where(chosen, cell.reshape(-1), -1)
    identity = np.where(chosen, identity.reshape(-1), -1)
    counts = np.zeros((cell.max() + 1, len(bounds)), np.int64)
    np.add.at(counts, (cell[chosen], split[chosen]), 1)
    of_cell, of_identity = _members(cell), _members(identity)
    for number in np.flatnonzero((counts == 0).any(axis=1) & (counts.sum(axis=1) >= len(bounds))).tolist():
        images = of_cell(number)
        for target in np.flatnonzero(counts[number] == 0).tolist():
            low, high = (bounds[target - 1] if target else 0.0), bounds[target]
            apart = np.maximum(low - places[images], places[images] - high)
            for nearest in images[np.argsort(apart, kind="stable")].tolist():
                copies, start = of_identity(identity[nearest]), split[nearest]
                cells, sizes = np.unique(cell[copies], return_counts=True)
                if (counts[cells, start] > sizes).all():
                    counts[cells, start] -= sizes
                    counts[cells, target] += sizes
                    split[copies] = target
                    break


def _members(groups: np.ndarray) -> Callable[[int], np.ndarray]:
    """[n] group numbers -> a function from a number to the indices of its members."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    return lambda number: order[slice(*np.searchsorted(ordered, [number, number + 1]))]


def _group(listing: Listing, index: int, shares: Shares) -> str:
    labels = {
        axis: names[label] if label >= 0 else "?"
        for (axis, names), label in zip(listing.axes.items(), listing.labels[index].tolist(), strict=True)
    }
    try:
        return shares.group_of(listing.key(index), labels)
    except KeyError as error:
        known = ", ".join((*_FIELDS, *listing.axes))
        raise DataError(
            f"--group={shares.group}: there is no field {error.args[0]!r}, only {known}"
        ) from None
