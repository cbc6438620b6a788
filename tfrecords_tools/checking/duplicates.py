"""Duplicate images: exact (the same bytes) or near (perceptual hashes that differ in a few bits).

Perceptual hash: ImageHash's `phash`, 64 bits of the lowest frequencies. Two images are near
duplicates when at most `distance` of the bits differ; resized, recompressed or slightly brightened
copies usually are within 4. A distance of -1 finds exact duplicates only.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tfrecords_tools.checking.hashing import Hashes, StoredImage
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records, split_names
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.progress import counted

DISTANCE = 4
BITS = 64
_BLOCK = 2_048  # hashes compared with one another at once: 4 million pairs
_RANKS = {split_names.TRAIN: 0, split_names.VALIDATION: 1, split_names.TEST: 2}


def _bits_set(words: np.ndarray) -> np.ndarray:
    """The number of bits of each uint64 that are 1."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(-1)  # NumPy 1


def require_distance(distance: int) -> None:
    """Raises UsageError for a distance outside -1..16."""
    if not -1 <= distance <= 16:
        raise UsageError(f"--duplicate_distance must be 0 to 16 bits, or -1 for exact only, not {distance}")


def groups(hashes: Hashes, distance: int) -> np.ndarray:
    """Groups of duplicates: [n] group numbers, equal for images that are duplicates of one another.

    Being a duplicate is transitive: if A and B are near and B and C are near, all three are one group.
    """
    count = len(hashes.content)
    if not count:
        return np.zeros(0, np.int64)
    _, group = np.unique(hashes.content, axis=0, return_inverse=True)
    parent = np.arange(count)
    first = np.full(count, -1)
    group = group.reshape(-1)
    first[group[::-1]] = np.arange(count)[::-1]
    parent = first[group]
    if distance >= 0:
        for one, other in near(hashes.phash, hashes.has_phash, distance):
            one, other = _root(parent, one), _root(parent, other)
            parent[max(one, other)] = min(one, other)
    return np.array([_root(parent, index) for index in range(count)])


def _root(parent: np.ndarray, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return int(index)


def near(values: np.ndarray, has_phash: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of images whose hashes differ in at most `distance` bits; a pair may come several times.

    Cut into distance + 1 bands, two such hashes agree in at least one band (pigeonhole): only images
    that share a band are compared. Images of one hash are linked to the first of them only.
    """
    distinct, first = np.unique(values[has_phash], return_index=True)
    places = np.flatnonzero(has_phash)
    leader = dict(zip(distinct.tolist(), places[first].tolist(), strict=True))
    for index in places.tolist():
        if leader[int(values[index])] != index:
            yield leader[int(values[index])], index
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        band = (distinct >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(band, kind="stable")
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for run in np.split(order, cuts):
            for start in range(0, len(run), _BLOCK):
                block = run[start : start + _BLOCK]
                apart = _bits_set(distinct[block][:, None] ^ distinct[run[start:]][None])
                for one, other in zip(*np.nonzero(apart <= distance), strict=True):
                    if other > one:
                        yield leader[int(distinct[block[one]])], leader[int(distinct[run[start + other]])]


@dataclasses.dataclass(frozen=True)
class Report:
    """Groups of duplicates.

    Attributes:
      leaks: those across splits.
      within: those within one split.
      contradicting: of all, those whose images have different labels.
    """

    leaks: list[list[StoredImage]]
    within: list[list[StoredImage]]
    contradicting: list[list[StoredImage]]

    @property
    def summary(self) -> str:
        """One line of text."""
        across, within = (sum(map(len, kind)) for kind in (self.leaks, self.within))
        return (
            f"{counted(len(self.leaks), 'group')} across splits ({counted(across, 'image')}), "
            f"{len(self.within):,} within a split ({counted(within, 'image')})"
        )


def report(group: np.ndarray, names: list[StoredImage]) -> Report:
    """The groups of more than one image, separated by whether they cross splits."""
    order = np.argsort(group, kind="stable")
    result = Report([], [], [])
    for run in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(run) > 1:
            members = [names[index] for index in run.tolist()]
            (result.leaks if len({image.split for image in members}) > 1 else result.within).append(members)
            if len({image.labels for image in members if image.labels.strip("?/")}) > 1:
                result.contradicting.append(members)
    return result


def _role(listing: Listing, split: str) -> str:
    role = split_names.role(split) or split_names.role_at_end(split)
    if role is None:
        raise DataError(
            f"{listing.root}: duplicates are kept in the test split, else in the validation split, but the "
            f"name of the split {split!r} does not say which it is; rename it, for example with "
            f"--merge={split}:train"
        )
    return role


def across_splits(listing: Listing, group: np.ndarray, stored: Sequence[StoredImage] = ()) -> Listing:
    """Keeps each group of duplicates in one split only: in test, else validation, else train.

    Args:
      listing: the images.
      group: [images + stored] group numbers, see `groups`.
      stored: the images that stay in any case; their duplicates enter no other split.

    Raises:
      DataError: the name of a split does not say which kind it is.

    The images that are left out are listed in `skipped`, each with the copy that stays.
    """
    listed = group[: len(listing)]
    stored_in: dict[int, list[StoredImage]] = collections.defaultdict(list)
    for number, image_name in zip(group[len(listing) :].tolist(), stored, strict=True):
        if number < len(
            listing
        ):  # else the group has no image of the listing: it is named by its first member
            stored_in[number].append(image_name)
    kept_copy, keep = {}, np.ones(len(listing), bool)
    for index in np.flatnonzero(np.isin(listed, list(stored_in))).tolist():
        split = listing.splits[listing.split[index]]
        other = next((image.key for image in stored_in[int(listed[index])] if image.split != split), None)
        if other is not None:
            kept_copy[index], keep[index] = other, False
    rank = np.array([_RANKS[_role(listing, name)] * 1_000 + n for n, name in enumerate(listing.splits)])
    split_rank, best, first = rank[listing.split], np.full(len(listing), -1), np.full(len(listing), -1)
    np.maximum.at(best, listed[keep], split_rank[keep])
    keep &= split_rank == best[listed]
    first[listed[keep]] = np.flatnonzero(keep)
    reasons = []
    for index in np.flatnonzero(~keep).tolist():
        other = kept_copy.get(index) or records.key_text(listing.key(first[listed[index]]))
        reasons.append((listing.key(index), f"duplicate across splits: {other} is the same picture"))
    kept = listing.only(keep)
    return dataclasses.replace(kept, skipped=listing.skipped + reasons)
