"""WebDataset: tar files whose members of one name, up to the first dot, are one sample.

    000017.jpg    the image
    000017.cls    its class, a number or a name
    000017.json   or a document with its class, and perhaps its split and its key

A sample's members follow one another. Class numbers get names from `AXIS.labels.txt` or `classnames.txt`, one
a line, beside the tar files. `tfrecords_tools.export` writes `{"key": …, "split": …, "labels": {AXIS:
NAME}}`.
"""

import dataclasses
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import storage
from tfrecords_tools.format.folder import FolderEntry
from tfrecords_tools.images.image import MAX_FILE_BYTES
from tfrecords_tools.sources import container_files, labelled, tar_files
from tfrecords_tools.sources.container_files import ContainerFiles
from tfrecords_tools.sources.labelled import CATEGORY, DEFAULT_SPLIT, KEY, SPLIT
from tfrecords_tools.sources.spool import Spool
from tfrecords_tools.sources.tar_files import TarMember

_AXIS = re.compile("[A-Za-z][A-Za-z0-9_]*")
_FIRST_SAMPLES = 20  # of each file, in which labels are looked for
_MAX_LABEL_BYTES = 1 << 20  # of a .cls or .json member
_LABEL_MEMBERS = ("cls", "json")


@dataclasses.dataclass
class _Sample:
    """The members of one sample that matter, by the end of their names."""

    name: bytes
    images: dict[str, TarMember]
    data: bytes  # of the image, where a spool keeps it; else its first bytes are not needed
    labels: dict[str, bytes]


class WebDataset(labelled.Labelled):
    """A `Source`: the samples of tar files."""

    def __init__(self, pattern: str, columns: Mapping[str, str], spool_folder: str | None):
        """Opens the files.

        Args:
          pattern: of their names, see `container_files.expand`.
          columns: axis -> field of the .json members; empty for the usual fields.
          spool_folder: see `Spool`; used when the files are compressed.
        """
        self.root = f"tar:{pattern}"
        names = container_files.expand(pattern, ".tar")
        self._files = ContainerFiles(names)
        self._splits = labelled.splits_of(names)
        self._columns, self._split = labelled.without_split(columns)
        self.class_names = _class_names(names[0])
        self.axes = self._first_axes()
        compressed = tar_files.is_compressed(self._files)
        identity = [self._files.identity(), self._columns, self.class_names, self._split]
        self._spool = Spool(spool_folder, identity) if compressed else None

    def walk(self) -> Iterator[FolderEntry]:
        """The image of each sample, and what cannot be one."""
        if self._spool:
            yield from self._spool.entries(self._entries)
        else:
            yield from self._entries(None)

    def _entries(self, keep: Callable[[bytes], int] | None) -> Iterator[FolderEntry]:
        keys = labelled.Keys()
        for file in range(len(self._files.names)):
            for count, sample in enumerate(_samples(self._files, file, keep is not None)):
                yield self._entry(sample, file, count, keys, keep)

    def _entry(
        self, sample: _Sample, file: int, count: int, keys: labelled.Keys, keep: Callable[[bytes], int] | None
    ) -> FolderEntry:
        shown = sample.name
        if len(sample.images) != 1:
            problem = f"a sample of {len(sample.images)} images ({', '.join(sample.images)})"
            return FolderEntry(shown, 0, problem)
        ((end, member),) = sample.images.items()
        problem = member.entry.problem
        try:
            labels = self._labels(sample)
        except ValueError as error:
            labels, problem = {}, problem or str(error)
        fields = _document(sample)
        values = {SPLIT: DEFAULT_SPLIT, **labels}
        try:
            if self._split:
                values[SPLIT] = labelled.named_split(_value(fields, self._split), self._split)
            else:
                name = self._files.names[file]
                values[SPLIT] = labelled.split_value(fields.get(SPLIT), self._splits[file], name)
        except ValueError as error:
            problem = problem or str(error)
        stem = pathlib.PurePosixPath(self._files.names[file]).name.partition(".")[0]
        name = f"{sample.name.decode('utf-8', 'surrogateescape')}.{end}"
        own = keys.own(fields.get(KEY)) if isinstance(fields.get("labels"), dict) else None
        key = own or keys.key(values, name, f"{stem}-{count:06d}", b"")
        place = member.entry.place if keep is None else 0
        if keep is not None and not problem and member.entry.size <= MAX_FILE_BYTES:
            place = keep(sample.data)
        return FolderEntry(key, member.entry.size, problem, place, values)

    def read_image(self, key: bytes, size: int, place: int) -> bytes:
        return self._spool.read(size, place) if self._spool else self._files.read(place, size)

    def _first_axes(self) -> tuple[str, ...]:
        """The axes of the first samples that have labels; all other samples are read for the same."""
        if self._columns:
            return labelled.ordered(tuple(self._columns))
        for number in range(len(self._files.names)):
            axes: dict[str, None] = {}
            for sample in itertools.islice(_samples(self._files, number, False), _FIRST_SAMPLES):
                fields = self._fields(_document(sample))
                axes |= dict.fromkeys(fields or ((CATEGORY,) if "cls" in sample.labels else ()))
            if axes:
                return labelled.ordered(tuple(axes))
        raise DataError(
            f"{self.root}: no labels in the first samples of any file; each needs a member NAME.cls, or "
            f"NAME.json with a field such as label (--label_columns={CATEGORY}=FIELD names another); an "
            "archive of a folder is named without tar:"
        )

    def _fields(self, document: Mapping[str, Any]) -> dict[str, str]:
        """Axis -> field, of those that usually hold labels."""
        return {axis: field for axis, field in _label_fields(document).items() if field != self._split}

    def _labels(self, sample: _Sample) -> dict[str, str]:
        """Axis -> class name. Raises ValueError for a label that is none."""
        document = _document(sample)
        fields = self._columns or self._fields(document)
        labels = {}
        for axis in self.axes:
            value = _value(document, fields[axis]) if axis in fields else None
            if value is None and axis == CATEGORY and "cls" in sample.labels:
                text = sample.labels["cls"].decode("utf-8", "replace").strip()
                value = int(text) if text.removeprefix("-").isdecimal() else text
            name = labelled.label_name(value, self.class_names.get(axis, ()))
            if name is not None:
                labels[axis] = name
        return labels


def _samples(files: ContainerFiles, number: int, with_data: bool) -> Iterator[_Sample]:
    """The samples of one file that have an image or a label."""
    parts = ((member, *_parts(member.entry.key)) for member in tar_files.members_of(files, number))
    for name, group in itertools.groupby(parts, key=lambda part: part[1]):
        sample = _sample(name, ((member, end) for member, _, end in group), with_data)
        if sample.images or sample.labels:
            yield sample


def _sample(name: bytes, members: Iterable[tuple[TarMember, str]], with_data: bool) -> _Sample:
    sample = _Sample(name, {}, b"", {})
    for member, end in members:
        if f".{end}".encode() in storage.IMAGE_SUFFIXES:
            sample.images[end] = member
            if with_data and not member.entry.problem and member.entry.size <= MAX_FILE_BYTES:
                sample.data = member.read()
        elif end in _LABEL_MEMBERS and not member.entry.problem and member.entry.size <= _MAX_LABEL_BYTES:
            sample.labels[end] = member.read()
    return sample


def _parts(key: bytes) -> tuple[bytes, str]:
    """A member's name up to the first dot of its last part, and what follows it, in lower case."""
    folder, slash, base = key.rpartition(b"/")
    stem, _, end = base.partition(b".")
    return folder + slash + stem, end.decode("utf-8", "replace").lower()


def _document(sample: _Sample) -> dict[str, Any]:
    """The sample's .json member; empty when there is none that is an object."""
    try:
        document = json.loads(sample.labels.get("json", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _label_fields(document: Mapping[str, Any]) -> dict[str, str]:
    """Axis -> field of a document with labels: all of `labels`, or the fields that are called so."""
    labels = document.get("labels")
    if isinstance(labels, dict):
        return {axis: f"labels.{axis}" for axis in labels if _AXIS.fullmatch(axis) and axis != SPLIT}
    fields: dict[str, str] = {}
    for field in labelled.CLASS_COLUMNS:
        if isinstance(document.get(field), str | int):
            fields.setdefault(labelled.axis_of(field), field)
    return fields


def _value(document: Mapping[str, Any], field: str) -> Any:
    """A field of a document; `labels.AXIS` is one of its object `labels`. Raises ValueError for no label."""
    value: Any = document.get(field)
    outer, _, inner = field.partition(".")
    if field not in document and inner and isinstance(document.get(outer), dict):
        value = document[outer].get(inner)
    if value is not None and not isinstance(value, str | int):
        raise ValueError(f"its {field} is a {type(value).__name__}, not a class")
    return value


def _class_names(file: str) -> dict[str, tuple[str, ...]]:
    """The names in `AXIS.labels.txt` and `classnames.txt` beside a tar file, by axis."""
    folder = storage.open_folder(file.rpartition("/")[0] or "/")
    names = {}
    for name in folder.names():
        if name == "classnames.txt" or name.endswith(".labels.txt"):
            axis = CATEGORY if name == "classnames.txt" else name.removesuffix(".labels.txt")
            text = folder.read(name, limit=_MAX_LABEL_BYTES * 16).decode("utf-8", "surrogateescape")
            lines = text.removeprefix("\ufeff").removesuffix("\n").split("\n")
            names[axis] = tuple(line.removesuffix("\r") for line in lines)  # Windows ends them with both
    return names
