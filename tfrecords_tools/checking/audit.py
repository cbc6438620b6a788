"""Checks a data folder against its manifest: every checksum, every record, every index row.

`audit` finds damage and names it: file, record number, key. It trusts nothing in the folder but
the manifest, and that only after its own checksum.
"""

import collections
import dataclasses
import hashlib
import struct
from collections.abc import Callable, Iterator

import numpy as np

from tfrecords_tools import workers
from tfrecords_tools.checking.damage import Damage
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import records, storage, tfds_metadata
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import ENDINGS, cell_name
from tfrecords_tools.images import image

_MANY = 20  # damages reported per shard


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard to check: its manifest entry, and its split's name."""

    split: str
    shard: manifests.Shard


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all shards share. Picklable."""

    data_dir: str
    axes: dict[str, tuple[str, ...]]
    decode: bool


def audit(
    data_dir: str,
    *,
    decode: bool = False,
    processes: int = 1,
    on_progress: Callable[[int, int, int], None] = lambda images, size, damaged: None,
) -> tuple[manifests.Manifest, list[Damage]]:
    """Checks a whole data folder.

    Args:
      data_dir: the folder.
      decode: also decode every image and compare its size with the index.
      processes: number of worker processes.
      on_progress: called with (images, bytes, damages) so far.

    Raises:
      DataError: the manifest itself cannot be read.
    """
    manifest = manifests.load(data_dir, shards=False)
    store = storage.open_folder(data_dir)
    all_damages = []
    if store.read(manifests.FILE_NAME) != manifests.dumps(manifest):
        all_damages.append(Damage(manifests.FILE_NAME, "its bytes are not those that were written"))
    all_damages += _companions(store, manifest)
    tasks = [Task(name, part) for name, split in manifest.splits.items() for part in split.shards]
    setting = Setting(data_dir, manifest.axes, decode)
    pool = workers.WorkerPool(
        check_shard, setting, workers=max(1, min(processes, len(tasks))), on_tick=on_progress
    )
    cells: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in manifest.splits}
    encodings: collections.Counter[str] = collections.Counter()
    damaged = {}
    for task, (damages, shard_cells, shard_encodings) in pool.run(tasks):
        damaged[task.shard.file] = damages
        cells[task.split].update(shard_cells)
        encodings.update(shard_encodings)
    for task in tasks:
        all_damages += damaged[task.shard.file]
    if not any(damaged.values()):
        all_damages += _totals(manifest, cells, encodings)
    return manifest, all_damages


def _companions(store: Folder, manifest: manifests.Manifest) -> Iterator[Damage]:
    for name, sha256 in manifest.files.items():
        try:
            data = store.read(name)
        except OSError as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error.strerror})"
            yield Damage(name, reason)
            continue
        if hashlib.sha256(data).hexdigest() != sha256:
            yield Damage(name, "its SHA-256 is not the manifest's")
    for alias, name in tfds_metadata.aliases(manifest).items():
        if store.size(alias) is None or bytes(store.view(alias)) != bytes(store.view(name)):
            yield Damage(alias, f"is not the same as {name}")


def _totals(manifest: manifests.Manifest, cells: dict, encodings: collections.Counter) -> Iterator[Damage]:
    """The counts of the manifest, which no single shard shows."""
    for name, split in manifest.splits.items():
        if dict(cells[name]) != split.cells:
            yield Damage(
                manifests.FILE_NAME, f"counts {split.cells} in {name}, the records {dict(cells[name])}"
            )
    if dict(encodings) != manifest.encodings:
        yield Damage(
            manifests.FILE_NAME, f"counts encodings {manifest.encodings}, the records {dict(encodings)}"
        )


def check_shard(setting: Setting, task: Task, counts: workers.Counts) -> tuple[list[Damage], dict, dict]:
    """Checks one shard: (damages, images per cell, images per encoding)."""
    store = storage.open_folder(setting.data_dir)
    damages, data = [], {}
    for ending in ENDINGS:
        file = task.shard.file + ending
        try:
            data[ending] = store.view(file, entire=True)
        except OSError as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error.strerror})"
            damages.append(Damage(file, reason))
            continue
        size = len(data[ending])
        if not ending and size != task.shard.bytes:
            damages.append(Damage(file, f"{size} bytes, but the manifest says {task.shard.bytes}"))
        elif hashlib.sha256(data[ending]).hexdigest() != task.shard.sha256[ending]:
            damages.append(Damage(file, "its SHA-256 is not the manifest's"))
    if "" not in data:
        return damages, {}, {}
    sound = not damages
    reader = _Reader(setting, task.shard, data, counts)
    damages += reader.damages[:_MANY]
    if len(reader.damages) > _MANY:
        damages.append(Damage(task.shard.file, f"and {len(reader.damages) - _MANY} more of its records"))
    if sound and not reader.damages:
        damages += reader.disagreements()
    return damages, dict(reader.cells), dict(reader.encodings)


class _Reader:
    """One pass over a shard's records, beside its index."""

    def __init__(self, setting: Setting, part: manifests.Shard, data: dict, counts: workers.Counts):
        self.setting, self.part, self.counts = setting, part, counts
        self.data, self.index = data[""], data.get(".idx")
        self.damages: list[Damage] = []
        self.cells: collections.Counter[str] = collections.Counter()
        self.encodings: collections.Counter[str] = collections.Counter()
        self.rows: list[tuple] = []
        self.table = _table(data.get(".npy"), len(setting.axes), part)
        for number, (offset, payload, key, wrong) in enumerate(self._records()):
            if wrong:
                self.damages.append(Damage(part.file, wrong, number, key))
            else:
                self._take(number, offset, payload)
            counts.add(1, len(payload), bool(wrong))

    def _records(self) -> Iterator[tuple[int, bytes, str, str]]:
        """(offset, payload, key where the index knows it, what is wrong)."""
        offset, number = 0, 0
        while offset < len(self.data):
            head = self.data[offset : offset + records.LENGTH_BYTES]
            end, wrong = 0, "cut off"
            if len(head) == records.LENGTH_BYTES:
                length, crc = struct.unpack("<QI", head)
                if records.masked_crc(head[:8]) != crc:
                    wrong = "the checksum of its length is wrong"
                else:
                    end = offset + len(head) + length + records.FOOTER_BYTES
            if end and end <= len(self.data):
                payload = self.data[offset + len(head) : end - records.FOOTER_BYTES]
                (crc,) = struct.unpack("<I", self.data[end - records.FOOTER_BYTES : end])
                wrong = "" if records.masked_crc(payload) == crc else "the checksum of its data is wrong"
                yield offset, payload, _key(payload) if wrong else "", wrong
            else:
                end = self._next(number)
                rest = self.data[offset + len(head) : end]
                yield offset, b"", _key(rest), wrong
            offset, number = end, number + 1

    def _next(self, number: int) -> int:
        """The offset of the record after one with a broken length, from the index; else the end."""
        if self.table is not None and number + 1 < len(self.table):
            return int(self.table["offset"][number + 1])
        return len(self.data)

    def _take(self, number: int, offset: int, payload: bytes) -> None:
        try:
            encoded, key, labels = records.parse(payload)
        except ValueError as error:
            self.damages.append(Damage(self.part.file, str(error), number))
            return
        axes = self.setting.axes
        if list(labels) != sorted(axes) and set(labels) != set(axes):
            problem = f"has the labels {sorted(labels)}, but the manifest's axes are {list(axes)}"
            self.damages.append(Damage(self.part.file, problem, number, records.key_shown(key)))
            return
        values = tuple(labels[axis] for axis in axes)
        if any(not -1 <= value < len(axes[axis]) for axis, value in labels.items()):
            problem = f"a label is out of range: {labels}"
            self.damages.append(Damage(self.part.file, problem, number, records.key_shown(key)))
            return
        self.cells[cell_name(axes, values)] += 1
        start = offset + records.LENGTH_BYTES + records.image_span(payload, encoded)
        size = records.LENGTH_BYTES + len(payload) + records.FOOTER_BYTES
        self.rows.append((offset, size, start, len(encoded), values))
        if self.table is not None and number < len(self.table):
            row = self.table[number]
            encoding = int(row["encoding"])
            if 0 <= encoding < len(records.ENCODINGS):
                self.encodings[records.ENCODINGS[encoding]] += 1
            if self.setting.decode:
                self._decode(number, encoded, key, row)

    def _decode(self, number: int, encoded: bytes, key: bytes, row: np.ndarray) -> None:
        height, width = int(row["height"]), int(row["width"])
        if row["encoding"] == records.ENCODINGS.index("raw"):
            shape = (height, width) if len(encoded) == height * width * 3 else (0, 0)
        else:
            checked = image.check(encoded)
            if isinstance(checked, image.Rejected):
                self.damages.append(Damage(self.part.file, checked.reason, number, records.key_shown(key)))
                return
            shape = checked.height, checked.width
        if shape != (height, width):
            problem = f"its image is {shape[0]}x{shape[1]}, the index says {height}x{width}"
            self.damages.append(Damage(self.part.file, problem, number, records.key_shown(key)))

    def disagreements(self) -> Iterator[Damage]:
        """Contradictions between undamaged files, which a faulty writer would cause."""
        if len(self.rows) != self.part.records:
            yield Damage(
                self.part.file, f"{len(self.rows)} records, but the manifest says {self.part.records}"
            )
        if bytes(self.index or b"") != "".join(f"{row[0]} {row[1]}\n" for row in self.rows).encode():
            yield Damage(f"{self.part.file}.idx", "does not give the offsets of the records")
        if self.table is None or len(self.table) != len(self.rows):
            yield Damage(f"{self.part.file}.npy", "is not the table of the shard's records")
            return
        for number, (row, indexed) in enumerate(zip(self.rows, self.table, strict=True)):
            index_row = (*(int(indexed[name]) for name in ("offset", "size", "image_offset", "image_size")),
                    tuple(indexed["labels"].tolist()))  # fmt: skip
            if index_row != row:
                yield Damage(f"{self.part.file}.npy", f"says {index_row} where the shard has {row}", number)
                return


def _table(data: bytes | None, axes: int, part: manifests.Shard) -> np.ndarray | None:
    """The table, or None if its checksum is wrong or it is none."""
    if data is None or hashlib.sha256(data).hexdigest() != part.sha256[".npy"]:
        return None
    try:
        return records.load_table(bytes(data), axes)
    except ValueError:
        return None


def _key(payload: bytes) -> str:
    """The key in a damaged record, if it can still be read."""
    try:
        return records.key_shown(records.parse(payload)[1])
    except ValueError:
        return ""


def strays(data_dir: str, manifest: manifests.Manifest) -> list[str]:
    """Files that the manifest does not know."""
    known = {manifests.FILE_NAME, *manifest.files, *tfds_metadata.aliases(manifest)}
    for split in manifest.splits.values():
        known |= {part.file + ending for part in split.shards for ending in ENDINGS}
    return [name for name in storage.open_folder(data_dir).names() if name not in known]
