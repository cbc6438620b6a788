"""Splits for folders that have none: a pure function of each image's content, or of its group.

An image's place is a hash of its bytes (of its group's name if grouped), as a number from 0 to 1,
looked up among the splits' shares. So an added image never moves another, copies of one image stay
together, and shares are met on average, in every class alike.
"""

import dataclasses
import hashlib
import pathlib
import string

import numpy as np

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.listing.listing import Listing

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


def assign(listing: Listing, shares: Shares, content: np.ndarray | None, seed: int) -> Listing:
    """Gives every image a split.

    Args:
      listing: of a folder without splits.
      shares: the splits.
      content: [n, 2] uint64 hashes of the images' bytes; None where there are groups.
      seed: another one gives other splits.

    Raises:
      DataError: the folder has splits, or the group template an unknown field.
    """
    if listing.layout.has_split or len(listing.splits) > 1:
        raise DataError(
            f"{listing.root}: has splits already ({', '.join(listing.splits)}); leave --split away, or "
            "make its first level something else with --layout, for example --layout='*/{category}'"
        )
    names = sorted(shares.shares)
    bounds = np.cumsum([shares.shares[name] for name in names])
    places = np.empty(len(listing))
    for index in range(len(listing)):
        if content is None or shares.group:
            identity = _group(listing, index, shares).encode()
        else:
            identity = content[index].tobytes()
        digest = hashlib.blake2b(
            identity, digest_size=8, key=seed.to_bytes(8, "little", signed=True)
        ).digest()
        places[index] = int.from_bytes(digest, "little") / 2**64
    split = np.minimum(np.searchsorted(bounds, places, side="right"), len(names) - 1).astype(np.int16)
    return dataclasses.replace(listing, split=split, splits=tuple(names))


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
