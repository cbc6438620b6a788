"""Parts of a split: `train[:80%]` is the first 80 % of the split train, `train[80%:]` the rest.

Images go to a part by a hash of their bytes, in every combination of labels alike, so that the parts have
the same shares of all classes, and copies of an image are in one part. Images that a later conversion
appended are divided by themselves: no image ever changes its part.
"""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfrecords_tools.errors import UsageError

if TYPE_CHECKING:
    from deepduel.decoding.split import Split

_NAME = re.compile(r"(?P<split>[^\[\]]+)\[(?:(?P<from>\d+)%)?:(?:(?P<to>\d+)%)?\]")
_CHUNK = 256  # records that are read at a time
_MOST_KEPT = 8  # splits whose hashes are kept
_hashes: dict[tuple, np.ndarray] = {}


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the two parts of a split.

    Attributes:
      split: name of the whole split.
      percent: where the split is divided, 1 to 99.
      rest: whether this is the part behind that place.
    """

    split: str
    percent: int
    rest: bool

    def __str__(self) -> str:
        return f"{self.split}[{self.percent}%:]" if self.rest else f"{self.split}[:{self.percent}%]"

    @property
    def other(self) -> "Part":
        """The part with all other images of the split."""
        return dataclasses.replace(self, rest=not self.rest)

    def records(self, split: "Split") -> np.ndarray:
        """The numbers of its records in the whole split, int64, ascending. Reads every image once."""
        rest = _divided(split, 1 - self.percent / 100)
        return np.flatnonzero(rest if self.rest else ~rest)


def parse(name: str) -> Part | None:
    """The part that a name such as "train[80%:]" means; None for the name of a whole split.

    Raises:
      UsageError: the brackets hold something else.
    """
    if "[" not in name:
        return None
    match = _NAME.fullmatch(name)
    bounds = [match[key] for key in ("from", "to") if match[key]] if match else []
    if match is None or len(bounds) != 1 or not 1 <= int(bounds[0]) <= 99:
        raise UsageError(f"a part of a split is written like train[:80%] or train[80%:], got {name!r}")
    return Part(match["split"], int(bounds[0]), rest=match["from"] is not None)


def others(split: "Split") -> list[str]:
    """The other splits of a split's folder; for a part also the other part of its split."""
    own = split.part.split if split.part else split.name
    names = [name for name in split.manifest.splits if name != own]
    return [*names, str(split.part.other)] if split.part else names


def _divided(split: "Split", share: float) -> np.ndarray:
    """Which records are in the rest, bool [N]; `share` of each class, by the order of the hashes."""
    hashes = _content_hashes(split)
    columns = [np.zeros(len(split), np.int32), *split.labels.values()]
    _, cells = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    cells = cells.reshape(-1)
    in_rest: dict[int, bool] = {}  # by hash: a copy goes where the first one is
    for first, last in _generations(split):
        order = np.lexsort((hashes[first:last], cells[first:last])) + first
        for images in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
            _divide(hashes[images].tolist(), share, in_rest)
    return np.array([in_rest[value] for value in hashes.tolist()], bool)


def _divide(hashes: list[int], share: float, in_rest: dict[int, bool]) -> None:
    """Decides about the images of one class, whose hashes are sorted; at least one is in each part."""
    wanted = min(max(round(share * len(hashes)), 1), len(hashes) - 1)
    copies = collections.Counter(hashes)
    count = sum(number for value, number in copies.items() if in_rest.get(value))
    for value, number in copies.items():
        if value in in_rest:
            continue
        in_rest[value] = count < wanted and count + number < len(hashes)
        count += number * in_rest[value]


def _generations(split: "Split") -> Iterator[tuple[int, int]]:
    """(first record, last record + 1) of the records that each conversion added."""
    counts = [shard.records for shard in split.shards]
    added = [generation["shards"].get(split.name, 0) for generation in split.manifest.generations]
    if sum(added) != len(counts):  # a folder of an early version does not tell
        added = [len(counts)]
    shard = 0
    for number in added:
        if number:
            yield sum(counts[:shard]), sum(counts[: shard + number])
        shard += number


def _content_hashes(split: "Split") -> np.ndarray:
    """A hash of each encoded image, uint64 [N]; kept, since both parts need those of the whole split."""
    key = (str(split.data_dir), split.name, *(shard.sha256[""] for shard in split.shards))
    if key not in _hashes:
        values = np.empty(len(split), np.uint64)
        for first in range(0, len(split), _CHUNK):
            numbers = np.arange(first, min(first + _CHUNK, len(split)))
            digests = [hashlib.blake2b(image, digest_size=8).digest() for image in split.images(numbers)]
            values[numbers] = np.frombuffer(b"".join(digests), "<u8")
        while len(_hashes) >= _MOST_KEPT:
            del _hashes[next(iter(_hashes))]
        _hashes[key] = values
    return _hashes[key]
