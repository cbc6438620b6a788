"""Duplicate images: within the evaluated split, and between it and the other splits of its folder.

Exact duplicates have the same stored bytes. Near duplicates have perceptual hashes at most 4 of 64 bits
apart (tfrecords_tools.checking.duplicates), as resized, recompressed or slightly brightened copies have.
Different images with plain backgrounds may be that close too, so the report shows examples to check by eye.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from deepduel.decoding import parts
from deepduel.decoding.split import Split
from tfrecords_tools import host_cpus
from tfrecords_tools.checking import duplicates, hashing
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.progress import Progress

NEAR_AT_MOST = 50_000  # images in all splits; with more, "auto" searches for exact duplicates only
EXAMPLES = 24  # pairs listed in metrics.json
_CHUNK = 64  # images per task


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """The result of a search for duplicates.

    Attributes:
      document: the "duplicates" of metrics.json, see `search`.
      in_other_splits: bool [N], True for records with an exact or near duplicate in another split.
      pairs: examples of near duplicates across splits, each as ((split, record), (other split, record)).
    """

    document: dict
    in_other_splits: np.ndarray
    pairs: list[tuple[tuple[Split, int], tuple[Split, int]]] = dataclasses.field(default_factory=list)


def search(split: Split, how: str = "auto") -> Duplicates:
    """Searches for duplicates of a split's images, within it and in the other splits of its folder.

    Args:
      how: "exact"; "near" also decodes every image of all splits; "auto" is "near" up to
        `NEAR_AT_MOST` images in total, else "exact"; "none" searches for nothing.

    Returns:
      Duplicates, whose document is {
        "within": number of images of the split that repeat an earlier one of it,
        "across": {other split: number of its images that are in this split too},
        "near": {"distance": bits,
                 "within": as above, exact duplicates included,
                 "across": {other split: number of images of *this* split with a near duplicate there},
                 "examples": [[{"split", "key"}, {"split", "key"}]]}};
      a part that was not searched for is {"note": the reason}.
    """
    others = [Split(split.root, name) for name in parts.others(split)]
    splits = [split, *others]
    count = sum(map(len, splits))
    if how == "none":
        return Duplicates({"note": "not searched for (--duplicates=none)"}, np.zeros(len(split), bool))
    near = how == "near" or (how == "auto" and count <= NEAR_AT_MOST)
    hashes = _hashed(splits, near)
    which = np.repeat(np.arange(len(splits)), [len(each) for each in splits])
    document, exact_in_others = _counts(duplicates.groups(hashes, -1), which, splits)
    if not near:
        reason = (
            "--duplicates=exact"
            if how == "exact"
            else f"the folder has {count:,} images, more than {NEAR_AT_MOST:,}; set --duplicates=near"
        )
        return Duplicates(document | {"near": {"note": f"not searched for ({reason})"}}, exact_in_others)
    group = duplicates.groups(hashes, duplicates.DISTANCE)
    near_counts, near_in_others = _counts(group, which, splits)
    near_counts["across"] = {
        other.name: int(np.isin(group[: len(split)], group[which == number]).sum())
        for number, other in enumerate(others, 1)
    }
    pairs = list(_pairs(group, which, splits, np.flatnonzero(near_in_others)))
    examples = [
        [{"split": each.name, "key": records.key_text(each.key(record))} for each, record in pair]
        for pair in pairs
    ]
    near_document = {"distance": duplicates.DISTANCE, **near_counts, "examples": examples}
    return Duplicates(document | {"near": near_document}, exact_in_others | near_in_others, pairs)


def _counts(group: np.ndarray, which: np.ndarray, splits: list[Split]) -> tuple[dict, np.ndarray]:
    """Counts the duplicates that `duplicates.groups` found.

    Args:
      group: int [all records], the same number for duplicates of one another.
      which: int [all records], index of the split in `splits`.

    Returns:
      ({"within", "across"}, bool [records of the first split]: whether another split has a duplicate).
    """
    first = group[which == 0]
    across = {
        other.name: int(np.isin(group[which == number], first).sum())
        for number, other in enumerate(splits[1:], 1)
    }
    counts = {"within": len(first) - len(np.unique(first)), "across": across}
    return counts, np.isin(first, group[which > 0])


def _pairs(
    group: np.ndarray, which: np.ndarray, splits: list[Split], numbers: np.ndarray
) -> Iterator[tuple[tuple[Split, int], tuple[Split, int]]]:
    """Pairs each of the first `EXAMPLES` records with one duplicate of it in another split."""
    firsts = np.cumsum([0, *map(len, splits)])
    for number in numbers[:EXAMPLES].tolist():
        other = int(np.flatnonzero((group == group[number]) & (which > 0))[0])
        yield (splits[0], number), (splits[which[other]], other - int(firsts[which[other]]))


def _hashed(splits: list[Split], near: bool) -> hashing.Hashes:
    """Hashes of all records, one split after the other."""
    count = sum(map(len, splits))
    hashes = hashing.Hashes(
        np.zeros((count, 2), np.uint64), np.zeros(count, np.uint64), np.zeros(count, bool)
    )

    def hash_some(split: Split, first: int, start: int) -> int:
        numbers = np.arange(start, min(start + _CHUNK, len(split)))
        for number, data in zip(numbers.tolist(), split.images(numbers), strict=True):
            index = first + number
            digest = hashlib.blake2b(data, digest_size=16).digest()
            hashes.content[index] = np.frombuffer(digest, np.uint64)
            if near:
                with contextlib.suppress(DataError):  # an image that does not decode has no perceptual hash
                    hashes.phash[index] = hashing.phash(split.pixels(number, data))
                    hashes.has_phash[index] = True
        return len(numbers)

    firsts = np.cumsum([0, *map(len, splits)]).tolist()
    pool = concurrent.futures.ThreadPoolExecutor(host_cpus.available(), "hash")
    with pool, Progress("searching for duplicates", total=count) as bar:
        jobs = [
            pool.submit(hash_some, split, first, start)
            for split, first in zip(splits, firsts, strict=False)
            for start in range(0, len(split), _CHUNK)
        ]
        done = 0
        try:
            for job in jobs:
                done += job.result()
                bar.update(done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return hashes
