"""Images that are there twice: exactly (the same bytes) or nearly (perceptual hashes a few bits apart).

Perceptual hash: ImageHash's `phash`, 64 bits of the lowest frequencies. Two images are near
duplicates when at most `distance` of the bits differ; resized, recompressed or slightly brightened
copies usually are within 4. A distance of -1 finds exact duplicates only.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tfrecords_tools import workers
from tfrecords_tools.checking import contact_sheets
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.images import image
from tfrecords_tools.images.encoding_options import EncodingOptions
from tfrecords_tools.images.stored import stored_pixels
from tfrecords_tools.listing.listing import Listing

DISTANCE = 4
BITS = 64
_CHUNK = 256  # images per job
_BLOCK = 2_048  # hashes compared with one another at once: 4 million pairs
_RANKS = {"train": 0, "training": 0, "validation": 2, "valid": 2, "val": 2, "dev": 2, "test": 3, "testing": 3}


@dataclasses.dataclass
class Hashes:
    """Hashes of n images.

    Attributes:
      content: [n, 2] uint64, BLAKE2b of the bytes.
      looks: [n] uint64, perceptual; meaningless where not `seen`.
      seen: [n] bool, whether the image could be decoded for it.
    """

    content: np.ndarray
    looks: np.ndarray
    seen: np.ndarray


def _bits_set(words: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are 1."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(-1)  # NumPy 1


def require_distance(distance: int) -> None:
    """Raises UsageError for a distance that is none."""
    if not -1 <= distance <= 16:
        raise UsageError(f"--duplicate_distance is 0 to 16 bits of 64, or -1 for exact only, not {distance}")


def of_listing(
    listing: Listing,
    *,
    perceptual: bool,
    processes: int,
    recipe: EncodingOptions | None = None,
    on_progress: Callable[[int, int, int], None] = lambda images, size, failed: None,
) -> Hashes:
    """Reads every image of a listing, and decodes it if `perceptual`.

    With a `recipe`, the hashes are of the image as it would be stored, as `of_folder`'s are.
    """
    jobs = (
        (start, [listing.key(index) for index in range(start, min(start + _CHUNK, len(listing)))])
        for start in range(0, len(listing), _CHUNK)
    )
    crew = workers.WorkerPool(
        _hash_files, (listing.root, perceptual, recipe), workers=max(1, processes), on_tick=on_progress
    )
    return _collect(((start, rows) for (start, _), rows in _run(crew, jobs)), len(listing))


def of_folder(
    whole: Manifest,
    data_dir: str,
    *,
    processes: int,
    perceptual: bool = True,
    on_progress: Callable[[int, int, int], None] = lambda images, size, failed: None,
) -> tuple[Hashes, list[tuple[str, str]]]:
    """Hashes of all stored images, and their (split, key)."""
    jobs, start = [], 0
    for split, held in whole.splits.items():
        for part in held.shards:
            jobs.append((start, split, part.file))
            start += part.records
    crew = workers.WorkerPool(
        _hash_shard, (data_dir, len(whole.axes), perceptual), workers=max(1, processes), on_tick=on_progress
    )
    names: list[tuple[str, str]] = [("", "")] * start
    results = []
    for (first, split, _), (rows, keys) in _run(crew, jobs):
        results.append((first, rows))
        names[first : first + len(keys)] = [(split, key) for key in keys]
    return _collect(results, start), names


def _run(crew: workers.WorkerPool, jobs: Iterable) -> Iterator:
    try:
        yield from crew.run(jobs)
    except workers.WorkerDied as death:
        raise DataError(
            f"a worker died twice ({death.how}) while hashing images; use fewer --workers"
        ) from death


def _collect(results: Iterable[tuple[int, list]], count: int) -> Hashes:
    made = Hashes(np.zeros((count, 2), np.uint64), np.zeros(count, np.uint64), np.zeros(count, bool))
    for start, rows in results:
        for number, (content, looks) in enumerate(rows, start):
            made.content[number] = np.frombuffer(content, np.uint64)
            if looks is not None:
                made.looks[number], made.seen[number] = looks, True
    return made


def _hash_files(
    common: tuple[str, bool, EncodingOptions | None], job: tuple[int, list[bytes]], counts: workers.Counts
) -> list:
    root, perceptual, recipe = common
    store, rows = storage.open_folder(root), []
    for key in job[1]:
        try:
            data = store.read_image(key)
        except OSError:
            data = b"unreadable: " + key  # convert says more about it
        counts.add(1, len(data))
        stored: bytes = data
        pixels: Any = None
        if recipe:
            checked = image.check(data, recipe)
            if isinstance(checked, image.Checked):
                stored, pixels = checked.data, _pixels(checked) if perceptual else None
        elif perceptual:
            pixels = image.pixels(data)
        rows.append((_digest(stored), looks(pixels) if isinstance(pixels, np.ndarray) else None))
    return rows


def _pixels(checked: image.Checked) -> np.ndarray:
    return stored_pixels(checked.data, checked.encoding, checked.height, checked.width)


def _hash_shard(
    common: tuple[str, int, bool], job: tuple[int, str, str], counts: workers.Counts
) -> tuple[list, list]:
    data_dir, axes, perceptual = common
    store, rows, keys = storage.open_folder(data_dir), [], []
    data = store.view(job[2])
    table = records.load_table(store.read(f"{job[2]}.npy"), axes)
    for row, payload in zip(table, records.read_payloads(data), strict=True):
        encoded, key, _ = records.parse(payload)
        rows.append((_digest(encoded), looks(contact_sheets.pixels(data, row)) if perceptual else None))
        keys.append(records.key_text(key))
        counts.add(1, len(encoded))
    return rows, keys


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def looks(pixels: np.ndarray) -> int:
    """The perceptual hash of an image, uint8 [H, W, 3]: 64 bits."""
    import imagehash  # SciPy comes with it: only who hashes waits for it

    bits = imagehash.phash(Image.fromarray(pixels)).hash.reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def groups(hashes: Hashes, distance: int) -> np.ndarray:
    """Which images are duplicates of which: [n] group numbers; the same number, the same picture.

    Images that are near an image that is near a third are all of one group.
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
        for one, other in near(hashes.looks, hashes.seen, distance):
            one, other = _root(parent, one), _root(parent, other)
            parent[max(one, other)] = min(one, other)
    return np.array([_root(parent, index) for index in range(count)])


def _root(parent: np.ndarray, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return int(index)


def near(values: np.ndarray, seen: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of images whose hashes differ in at most `distance` bits; a pair may come several times.

    Cut into distance + 1 bands, two such hashes agree in at least one band (pigeonhole): only images
    that share a band are compared. Images of one hash are linked to the first of them only.
    """
    distinct, first = np.unique(values[seen], return_index=True)
    places = np.flatnonzero(seen)
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
    """Groups of duplicates: across splits, and within one; each a list of (split, key)."""

    leaks: list[list[tuple[str, str]]]
    within: list[list[tuple[str, str]]]

    @property
    def summary(self) -> str:
        """For people."""
        across, within = (sum(map(len, kind)) for kind in (self.leaks, self.within))
        return (
            f"{len(self.leaks):,} groups across splits ({across:,} images), "
            f"{len(self.within):,} within a split ({within:,} images)"
        )


def report(group: np.ndarray, names: list[tuple[str, str]]) -> Report:
    """Sorts groups of more than one image by whether they cross splits."""
    order = np.argsort(group, kind="stable")
    found = Report([], [])
    for run in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(run) > 1:
            members = [names[index] for index in run.tolist()]
            (found.leaks if len({split for split, _ in members}) > 1 else found.within).append(members)
    return found


def across_splits(listing: Listing, group: np.ndarray, held: Sequence[tuple[str, str]] = ()) -> Listing:
    """Leaves each picture in one split only: test before validation before any other before train.

    Args:
      listing: the images.
      group: [images + held] which are the same picture, see `groups`.
      held: (split, key) of images that stay whatever happens: pictures of theirs enter no other split.

    What is left out is listed among `skipped`, each with the image that stays.
    """
    own, there = group[: len(listing)], collections.defaultdict(list)
    for number, one in zip(group[len(listing) :].tolist(), held, strict=True):
        if number < len(listing):  # else it has no copy in the listing: groups are named by their first
            there[number].append(one)
    stays, keep = {}, np.ones(len(listing), bool)
    for index in np.flatnonzero(np.isin(own, list(there))).tolist():
        split = listing.splits[listing.split[index]]
        other = next((key for theirs, key in there[int(own[index])] if theirs != split), None)
        if other is not None:
            stays[index], keep[index] = other, False
    rank = np.array([_RANKS.get(name.casefold(), 1) * 1_000 + n for n, name in enumerate(listing.splits)])
    mine, best, first = rank[listing.split], np.full(len(listing), -1), np.full(len(listing), -1)
    np.maximum.at(best, own[keep], mine[keep])
    keep &= mine == best[own]
    first[own[keep]] = np.flatnonzero(keep)
    reasons = []
    for index in np.flatnonzero(~keep).tolist():
        other = stays.get(index) or records.key_text(listing.key(first[own[index]]))
        reasons.append((listing.key(index), f"duplicate across splits: {other} is the same picture"))
    kept = listing.only(keep)
    return dataclasses.replace(kept, skipped=listing.skipped + reasons)
