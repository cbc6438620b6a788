"""manifest.json: what a data folder holds. Written last, so a folder that has one is complete.

The manifest is the only thing a reader needs besides the shards: label names, and per split
the shards with their record counts, byte sizes and SHA-256 sums.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from typing import TypedDict

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents, storage
from tfrecords_tools.format.documents import (
    AxisName,
    Count,
    DataName,
    FileName,
    HexDigest,
    LabelName,
    OptionName,
    SplitName,
)
from tfrecords_tools.format.folder import Folder

FILE_NAME = "manifest.json"
ENDINGS = ("", ".idx", ".npy")  # the files of a shard
_LEAST_BYTES = 16  # of a record: length and checksums
FORMAT = "deepduel-shards"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """One published shard.

    Attributes:
      file: its name inside the data folder; `.idx` and `.npy` lie beside it.
      records: how many records it holds.
      bytes: its size.
      sha256: hex digests by file ending: "" for the shard itself, ".idx", ".npy".
    """

    file: FileName
    records: Count
    bytes: Count
    sha256: dict[str, HexDigest]


@dataclasses.dataclass(frozen=True)
class Split:
    """One split, for example train.

    Attributes:
      shards: in the order of record numbers.
      cells: images per combination of labels, `{"real/animals": 870, …}` with names in the
        order of the axes and `?` for no label.
    """

    shards: tuple[Shard, ...]
    cells: dict[str, Count]

    @property
    def records(self) -> int:
        return sum(shard.records for shard in self.shards)


class Generation(TypedDict):
    """One conversion that added to a folder: its input, and what came of it."""

    source: HexDigest
    images: Count
    shards: dict[SplitName, Count]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A data folder.

    Attributes:
      name: the data set's name, the beginning of each shard's.
      axes: label names per label axis, in label order: `{"authenticity": ("real", "fake")}`.
      splits: by name.
      image_sizes: images per upright size `"HEIGHTxWIDTH"`; past 1,000 sizes the rest is "other".
      encodings: images per stored encoding ("jpeg", "png", "raw").
      rejected: number of images that are listed in rejected.csv.
      skipped: number of other files that are listed in skipped.csv; None in folders of version 0.1.0, whose
        rejected.csv has both.
      options: the conversion's options that decide the shards' bytes.
      source: SHA-256 over the input (keys, sizes, labels), hex.
      reencoded: images whose own bytes could not be kept, per reason.
      generations: one per conversion that added to the folder: `{"source": fingerprint, "images": count,
        "shards": {split: count}}`, and `images-00001.npy` (files) has its images' order hashes.
      files: SHA-256 of each other file of the folder (rejected.csv, TFDS's metadata), hex.
    """

    name: DataName
    axes: dict[AxisName, tuple[LabelName, ...]]
    splits: dict[SplitName, Split]
    image_sizes: dict[str, Count]
    encodings: dict[str, Count]
    rejected: Count
    options: dict[OptionName, str | int | float | bool | None]
    source: HexDigest
    reencoded: dict[str, Count] = dataclasses.field(default_factory=dict)
    generations: tuple[Generation, ...] = ()
    files: dict[FileName, HexDigest] = dataclasses.field(default_factory=dict)
    skipped: Count | None = None

    def label_name(self, axis: str, label: int) -> str:
        """The name of a label; "?" for no label (-1)."""
        return "?" if label < 0 else self.axes[axis][label]


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """TFDS's form: tensorflow_datasets/core/naming.py, {DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}."""
    return f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def cell_name(axes: dict[str, tuple[str, ...]], labels: Sequence[int]) -> str:
    """A combination of labels by name, such as "fake/animals"; "?" for a label that is missing."""
    return "/".join(
        "?" if label < 0 else names[label] for names, label in zip(axes.values(), labels, strict=True)
    )


def dumps(manifest: Manifest) -> bytes:
    """The manifest as the bytes of manifest.json; they end with a checksum over themselves."""
    document = {"format": FORMAT, "format_version": FORMAT_VERSION} | dataclasses.asdict(manifest)
    if manifest.skipped is None:
        del document["skipped"]
    document["checksum"] = _checksum(document)
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _checksum(document: dict) -> str:
    rest = {key: value for key, value in document.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, ensure_ascii=False).encode()).hexdigest()


def load(data_dir: str | os.PathLike, *, shards: bool = True) -> Manifest:
    """Reads manifest.json.

    Args:
      data_dir: folder of shards, or its URL.
      shards: whether to check that each shard exists and has its size.

    Raises:
      DataError: no such folder, no manifest, another format, a missing or resized shard.
    """
    folder = storage.open_folder(data_dir)
    path = f"{folder.root}/{FILE_NAME}"
    if not folder.exists():
        raise DataError(
            f"{folder.root}: there is no such folder of shards; check the path, or make the folder with "
            "python -m tfrecords_tools.convert"
        )
    try:
        document = documents.parse(folder.read(FILE_NAME, limit=documents.MAX_BYTES))
    except FileNotFoundError:
        raise DataError(
            f"{folder.root}: no {FILE_NAME}, so this is not a finished conversion; "
            "run python -m tfrecords_tools.convert with this --output_dir"
        ) from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: unreadable ({error}); convert again") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: not a manifest; convert again")
    version = document.get("format"), document.get("format_version")
    if version != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"{path}: format {version[0]!r} version {version[1]!r}, but this version reads "
            f"{FORMAT!r} version {FORMAT_VERSION}; convert again"
        )
    if document.get("checksum") != _checksum(document):
        raise DataError(
            f"{path}: its checksum does not fit, so it was damaged or edited; copy it again, or rebuild it: "
            "run python -m tfrecords_tools.convert as before, with --repair"
        )
    manifest = _from_document(document, path)
    if shards:
        listed = [(name, shard) for name, split in manifest.splits.items() for shard in split.shards]
        for (name, shard), size in zip(listed, folder.sizes([s.file for _, s in listed]), strict=True):
            _check_shard(folder, name, shard, size)
    return manifest


def _from_document(document: dict, path: str) -> Manifest:
    try:
        manifest = documents.check(document, Manifest)
    except ValueError as error:
        raise DataError(f"{path}: incomplete or malformed ({error}); convert again") from error
    for axis, names in manifest.axes.items():
        if len(set(names)) < len(names):
            raise DataError(f"{path}: malformed (two classes of {axis} have one name); convert again")
    for split in manifest.splits.values():
        for shard in split.shards:
            if set(shard.sha256) != set(ENDINGS):
                raise DataError(f"{path}: incomplete (the SHA-256 sums of {shard.file}); convert again")
    return manifest


def _remedy(folder: Folder) -> str:
    return (
        "copy the folder again, or rebuild the shard with the command that python -m tfrecords_tools.verify "
        f"--data_dir={folder.root} prints"
    )


def _check_shard(folder: Folder, split: str, shard: Shard, size: int | None) -> None:
    if size is None:
        raise DataError(
            f"{folder.root}/{shard.file}: missing, but the manifest lists it for split {split!r}; "
            f"{_remedy(folder)}"
        )
    if size != shard.bytes:
        raise DataError(
            f"{folder.root}/{shard.file}: {size} bytes, but the manifest says {shard.bytes}; "
            f"{_remedy(folder)}"
        )
    if shard.records * _LEAST_BYTES > size:
        raise DataError(
            f"{folder.root}/{shard.file}: {size} bytes cannot hold the {shard.records:,} records of the "
            "manifest; copy the folder again"
        )
