"""A data folder of any number of records over the bytes of a few: hard links to one shard.

What is opened, ordered and read by number is as large as asked for; the disk holds it once.
"""

import dataclasses
import os
import pathlib

from deepduel.decoding.split import Split
from tfrecords_tools import records as record_format
from tfrecords_tools.format import manifest as manifests


def write(source: Split, folder: pathlib.Path, *, records: int, per_shard: int) -> None:
    """Writes `folder` with one split, train, of `records` records that repeat those of `source`.

    Args:
      records: a multiple of `per_shard`.
      per_shard: records in each shard; all shards are the same file.
    """
    folder.mkdir()
    first = folder / f"synthetic-train.tfrecord-00000-of-{records // per_shard:05d}"
    places = _write_shard(source, first, per_shard)
    _write_tables(source, first, places)
    digests = dict.fromkeys(("", ".idx", ".npy"), "0" * 64)  # as long as real ones; nobody verifies them
    shards = []
    for number in range(records // per_shard):
        name = f"synthetic-train.tfrecord-{number:05d}-of-{records // per_shard:05d}"
        for ending in ("", ".idx", ".npy") if number else ():
            os.link(f"{first}{ending}", folder / f"{name}{ending}")
        shards.append(manifests.Shard(name, per_shard, first.stat().st_size, digests))
    split = manifests.Split(tuple(shards), {})
    (folder / "manifest.json").write_bytes(
        manifests.dumps(dataclasses.replace(source.manifest, name="synthetic", splits={"train": split}))
    )


def _write_shard(source: Split, path: pathlib.Path, count: int) -> list[tuple[int, int]]:
    """Copies whole records; returns (record of the source, offset in the new shard) of each."""
    places, offset = [], 0
    with path.open("wb") as file:
        for number in range(count):
            record = number % len(source)
            shard, _, start, size = source.place(record)
            with pathlib.Path(source.path(shard)).open("rb") as whole:
                whole.seek(start)
                file.write(whole.read(size))
            places.append((record, offset))
            offset += size
    return places


def _write_tables(source: Split, shard: pathlib.Path, places: list[tuple[int, int]]) -> None:
    import numpy as np

    table = np.zeros(len(places), record_format.table_dtype(len(source.manifest.axes)))
    lines = []
    for row, (record, offset) in zip(table, places, strict=True):
        _, _, start, size = source.place(record)
        _, image, length = (int(column[0]) for column in source.image_places(np.array([record])))
        row["offset"], row["size"] = offset, size
        row["image_offset"], row["image_size"] = offset + image - start, length
        row["height"], row["width"] = source.sizes[record]
        row["encoding"] = source.encoding[record]
        row["labels"] = [source.labels[axis][record] for axis in source.manifest.axes]
        lines.append(f"{offset} {size}\n")
    np.save(f"{shard}.npy", table)
    pathlib.Path(f"{shard}.idx").write_text("".join(lines))
