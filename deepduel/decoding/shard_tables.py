"""The tables beside the shards of a split, read and checked: each row must lie in its shard.

A table may come from a stranger, or belong to another shard. What it says is checked once, column by column,
so that no reader need look again.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from deepduel.decoding import host_memory
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import Shard
from tfrecords_tools.images.encoding_options import MAX_PIXELS

_HEADER = 1 << 16  # bytes of a table's header, at most
_LARGEST = (1 << 31) - 1  # bytes of a record
_BYTES_IN_MEMORY = 45  # of a row, see `split`
_ROWS_AT_ONCE = 1 << 16
_ALWAYS_TRIED = 64 << 20  # bytes that are read however little memory seems to be free
_Rule = tuple[np.ndarray, Callable[[int], str]]


def read(folder: Folder, shards: Sequence[Shard], axes: dict[str, tuple[str, ...]]) -> Iterator[np.ndarray]:
    """The tables of shards, in order: arrays of `records.table_dtype`.

    Args:
      axes: label names by axis.

    Raises:
      DataError: there is no room for them, or one is unreadable, or has an impossible row.
    """
    count, room = sum(shard.records for shard in shards), host_memory.available_bytes()
    if count * _BYTES_IN_MEMORY > max(room, _ALWAYS_TRIED):
        raise DataError(
            f"{folder.root}: the tables of {count:,} records take {count * _BYTES_IN_MEMORY / 1e9:.1f} GB, "
            f"but only {room / 1e9:.1f} GB of memory are available; use a machine with more memory"
        )
    row = records.table_dtype(len(axes)).itemsize
    contents = folder.read_all({f"{shard.file}.npy": shard.records * row + _HEADER for shard in shards})
    return _checked(folder, shards, contents, axes)


def _checked(
    folder: Folder, shards: Sequence[Shard], contents: Iterator[bytes], axes: dict[str, tuple[str, ...]]
) -> Iterator[np.ndarray]:
    """Yields tables; checks many small ones at once."""
    group: list[tuple[Shard, np.ndarray]] = []
    rows = 0
    for shard in shards:
        table = _load(folder, shard, contents, len(axes))
        group.append((shard, table))
        rows += len(table)
        if rows >= _ROWS_AT_ONCE or shard is shards[-1]:
            _require_possible(folder, group, axes)
            yield from (table for _, table in group)
            group, rows = [], 0


def _load(folder: Folder, shard: Shard, contents: Iterator[bytes], axes: int) -> np.ndarray:
    path = f"{folder.root}/{shard.file}.npy"
    try:
        table = records.load_table(next(contents), axes)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: unreadable ({error}); {_remedy(folder)}") from error
    if len(table) != shard.records:
        raise DataError(
            f"{path}: does not belong to its shard ({len(table)} records, the manifest says "
            f"{shard.records}); {_remedy(folder)}"
        )
    return table


def _remedy(folder: Folder) -> str:
    return (
        f"run python -m tfrecords_tools.verify --data_dir={folder.root}, which prints the command that "
        "rebuilds damaged files"
    )


def _require_possible(
    folder: Folder, group: list[tuple[Shard, np.ndarray]], axes: dict[str, tuple[str, ...]]
) -> None:
    counts = [len(table) for _, table in group]
    table = np.concatenate([table for _, table in group])
    ends = np.repeat(np.array([shard.bytes for shard, _ in group], np.int64), counts)
    for broken, words in _rules(table, ends, axes):
        if broken.any():
            row = int(broken.argmax())
            number = int(np.searchsorted(np.cumsum(counts), row, side="right"))
            path, within = f"{folder.root}/{group[number][0].file}.npy", row - sum(counts[:number])
            raise DataError(f"{path}: row {within} has {words(row)}; {_remedy(folder)}")


def _rules(table: np.ndarray, ends: np.ndarray, axes: dict[str, tuple[str, ...]]) -> Iterator[_Rule]:
    """(rows that break a rule, what such a row has); a rule may rely on the ones before it."""

    def within(name: str, column: np.ndarray, least: int, most: np.ndarray | int) -> _Rule:
        limit = lambda row: most if isinstance(most, int) else most[row]
        return (column < least) | (
            column > most
        ), lambda row: f"the {name} {column[row]}, not {least} to {limit(row)}"

    for name in ("offset", "image_offset"):
        yield within(name, table[name], 0, ends)
    for name in ("size", "image_size"):
        yield within(name, table[name], 0, np.minimum(ends, _LARGEST))
    for name in ("height", "width"):
        yield within(name, table[name], 1, MAX_PIXELS)
    yield within("encoding", table["encoding"], 0, len(records.ENCODINGS) - 1)
    for number, (axis, names) in enumerate(axes.items()):
        yield within(f"label of {axis}", table["labels"][:, number], records.NO_LABEL, len(names) - 1)
    offset, end = table["offset"], table["offset"] + table["size"]
    image_end = table["image_offset"] + table["image_size"]
    yield end > ends, lambda row: "an end past that of its shard"
    yield table["image_offset"] < offset + records.LENGTH_BYTES, lambda row: "an image before its record"
    yield image_end > end - records.FOOTER_BYTES, lambda row: "an image beyond its record"
    pixels = table["height"].astype(np.int64) * table["width"]
    yield pixels > MAX_PIXELS, lambda row: f"{pixels[row]:,} pixels, more than {MAX_PIXELS:,}"
    raw = table["encoding"] == records.ENCODINGS.index("raw")
    yield raw & (table["image_size"] != pixels * 3), lambda row: "a raw image of another size than its bytes"
