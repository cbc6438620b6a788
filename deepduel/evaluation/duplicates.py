"""Duplicate images: within the evaluated split, and between it and the other splits of its folder.

Exact duplicates have the same stored bytes. Near duplicates have perceptual hashes at most 4 of 64 bits
apart (tfrecords_tools.checking.duplicates), as resized, recompressed or slightly brightened copies have.
Two images that merely look alike may do so too, so examples are kept for a look.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator

import numpy as np

from deepduel.decoding.split import Split
from tfrecords_tools.checking import duplicates
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.progress import Progress

NEAR_AT_MOST = 50_000  # images in the folder up to which "auto" decodes them all
EXAMPLES = 24
_CHUNK = 64  # images per task


@dataclasses.dataclass(frozen=True)
class Copies:
    """The result of a search for duplicates.

    Attributes:
      document: the "duplicates" of metrics.json, see `search`.
      elsewhere: bool [N]: True for records with an exact or near duplicate in another split.
      pairs: examples of near duplicates across splits, each as ((split, record), (other split, record)).
    """

    document: dict
    elsewhere: np.ndarray
    pairs: list[tuple[tuple[Split, int], tuple[Split, int]]] = dataclasses.field(default_factory=list)


def search(split: Split, how: str = "auto") -> Copies:
    """Searches for duplicates of a split's images.

    Args:
      how: "exact"; "near" also decodes every image of all splits; "auto" is "near" up to
        `NEAR_AT_MOST` images in total, else "exact"; "none" searches for nothing.

    Returns, as document:
      {"within": images of the split beyond the first of each, "across": {other split: its images that
       are in this one too}, "near": {"distance", "within", "across": {other split: images of *this* split
       that look like one there}, "examples": [[{"split", "key"}, {"split", "key"}]]}};
      instead of what was not searched for, {"note": why}.
    """
    others = [Split(split.data_dir, name) for name in split.manifest.splits if name != split.name]
    splits = [split, *others]
    count = sum(map(len, splits))
    if how == "none":
        return Copies({"note": "not searched for (--duplicates=none)"}, np.zeros(len(split), bool))
    near = how == "near" or (how == "auto" and count <= NEAR_AT_MOST)
    hashes = _hashed(splits, near)
    which = np.repeat(np.arange(len(splits)), [len(each) for each in splits])
    document, elsewhere = _counts(duplicates.groups(hashes, -1), which, splits)
    if not near:
        why = (
            "--duplicates=exact"
            if how == "exact"
            else f"the folder has {count:,} images; --duplicates=near does"
        )
        return Copies(document | {"near": {"note": f"not searched for ({why})"}}, elsewhere)
    group = duplicates.groups(hashes, duplicates.DISTANCE)
    near_counts, alike = _counts(group, which, splits)
    near_counts["across"] = {
        other.name: int(np.isin(group[: len(split)], group[which == number]).sum())
        for number, other in enumerate(others, 1)
    }
    pairs = list(_pairs(group, which, splits, np.flatnonzero(alike)))
    examples = [
        [{"split": of.name, "key": records.key_text(of.key(record))} for of, record in pair] for pair in pairs
    ]
    near_document = {"distance": duplicates.DISTANCE, **near_counts, "examples": examples}
    return Copies(document | {"near": near_document}, elsewhere | alike, pairs)


def _counts(group: np.ndarray, which: np.ndarray, splits: list[Split]) -> tuple[dict, np.ndarray]:
    """({"within", "across"}, records of the first split that another has) by groups of copies."""
    own = group[which == 0]
    across = {
        other.name: int(np.isin(group[which == number], own).sum())
        for number, other in enumerate(splits[1:], 1)
    }
    counts = {"within": len(own) - len(np.unique(own)), "across": across}
    return counts, np.isin(own, group[which > 0])


def _pairs(group: np.ndarray, which: np.ndarray, splits: list[Split], numbers: np.ndarray) -> Iterator[tuple]:
    """Pairs each of the first `EXAMPLES` records with one duplicate of it in another split."""
    firsts = np.cumsum([0, *map(len, splits)])
    for number in numbers[:EXAMPLES].tolist():
        twin = int(np.flatnonzero((group == group[number]) & (which > 0))[0])
        yield (splits[0], number), (splits[which[twin]], twin - int(firsts[which[twin]]))


def _hashed(splits: list[Split], near: bool) -> duplicates.Hashes:
    """Hashes of all records, one split after the other."""
    count = sum(map(len, splits))
    hashes = duplicates.Hashes(
        np.zeros((count, 2), np.uint64), np.zeros(count, np.uint64), np.zeros(count, bool)
    )

    def hash_some(split: Split, first: int, start: int) -> int:
        numbers = np.arange(start, min(start + _CHUNK, len(split)))
        for number, data in zip(numbers.tolist(), split.images(numbers), strict=True):
            place = first + number
            digest = hashlib.blake2b(data, digest_size=16).digest()
            hashes.content[place] = np.frombuffer(digest, np.uint64)
            if near:
                with contextlib.suppress(DataError):  # an image that does not decode has no perceptual hash
                    hashes.looks[place] = duplicates.looks(split.pixels(number, data))
                    hashes.seen[place] = True
        return len(numbers)

    firsts = np.cumsum([0, *map(len, splits)]).tolist()
    pool = concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)), "hash")
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
