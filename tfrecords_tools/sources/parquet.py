"""Parquet files as Hugging Face writes image data sets, read by pyarrow.

A column of images is a struct {bytes, path} (or plain bytes); class columns are numbers whose names stand in
the schema's metadata, or are texts. Row groups can only be read from their start, so the images go through a
spool.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents
from tfrecords_tools.format.folder import FolderEntry
from tfrecords_tools.images.image import MAX_FILE_BYTES
from tfrecords_tools.sources import container_files, labelled
from tfrecords_tools.sources.container_files import ContainerFiles
from tfrecords_tools.sources.labelled import DEFAULT_SPLIT, KEY, SPLIT
from tfrecords_tools.sources.spool import Spool

AXES_METADATA = b"deepduel_axes"  # in a schema: the label axes, a JSON list of column names
_IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo")
_ROWS = 32  # read at once


class Parquet(labelled.Labelled):
    """A `Source`: the rows of Parquet files."""

    _spool: Spool

    def __init__(self, pattern: str, columns: Mapping[str, str], spool_folder: str | None):
        """Opens the files and reads the schema of the first.

        Args:
          pattern: of their names, see `container_files.expand`.
          columns: axis -> column; empty for the columns of classes.
          spool_folder: see `Spool`.
        """
        self.root = f"parquet:{pattern}"
        names = container_files.expand(pattern, ".parquet")
        self._files = ContainerFiles(names)
        self._splits = labelled.splits_of(names, sharded=True)
        schema = self._open(0).schema_arrow
        self._image = _image_column(schema, names[0])
        schemas = (self._open(number).schema_arrow for number in range(len(names)))
        features = next(filter(None, map(_features, schemas)), {})
        columns, self._split = labelled.without_split(columns)
        classes = {column: names for column, names in features.items() if column != self._split}
        self._columns = columns or _own_axes(schema) or _label_columns(schema, classes)
        if not self._columns:
            raise DataError(
                f"{names[0]}: no column of classes among {', '.join(schema.names)}; name one with "
                "--label_columns=category=COLUMN"
            )
        for axis, column in (*self._columns.items(), *[(SPLIT, self._split)] * (self._split is not None)):
            if column not in schema.names:
                raise DataError(
                    f"{names[0]}: no column {column!r} for {axis}; its columns are {', '.join(schema.names)}"
                )
        self.axes = labelled.ordered(tuple(self._columns))
        self.class_names = {
            axis: tuple(features[column]) for axis, column in self._columns.items() if column in features
        }
        self._split_names = features.get(self._split or "", [])
        identity = [self._files.identity(), self._columns, self.class_names, self._split]
        self._spool = Spool(spool_folder, identity)

    def walk(self) -> Iterator[FolderEntry]:
        """The image of each row, and why it cannot be one."""
        return self._spool.entries(self._entries)

    def _entries(self, keep: Callable[[bytes], int]) -> Iterator[FolderEntry]:
        keys = labelled.Keys()
        for number, name in enumerate(self._files.names):
            stem = pathlib.PurePosixPath(name).name.removesuffix(".parquet")
            for count, row in enumerate(self._rows(number)):
                of_file = self._splits[number]
                split = DEFAULT_SPLIT if self._split else labelled.split_value(row.get(SPLIT), of_file, name)
                yield self._entry(row, split, f"{stem}-{count:06d}", keys, keep)

    def _entry(
        self,
        row: dict[str, Any],
        split: str,
        position: str,
        keys: labelled.Keys,
        keep: Callable[[bytes], int],
    ) -> FolderEntry:
        value = row[self._image]
        path, data = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (None, value)
        problem = ""
        values = {SPLIT: split}
        try:
            if self._split:
                values[SPLIT] = labelled.named_split(row[self._split], self._split, self._split_names)
            for axis in self.axes:
                label = labelled.label_name(row[self._columns[axis]], self.class_names.get(axis, ()))
                if label is not None:
                    values[axis] = label
        except ValueError as error:
            problem = str(error)
        key = keys.own(row.get(KEY)) or keys.key(values, path or "", position, data or b"")
        if data is None:
            problem = problem or (
                "the row has no image"
                if path is None
                else "the row has a path but no bytes; datasets.table.embed_table_storage adds them"
            )
        elif len(data) > MAX_FILE_BYTES:
            problem = problem or f"{len(data):,} bytes: over the limit of {MAX_FILE_BYTES:,} bytes"
        if problem or data is None:
            return FolderEntry(key, 0, problem, 0, values)
        return FolderEntry(key, len(data), "", keep(data), values)

    def _rows(self, number: int) -> Iterator[dict[str, Any]]:
        """A file's rows, the needed columns only."""
        import pyarrow

        try:
            file = self._open(number)
            wanted = (self._image, KEY, SPLIT, self._split, *self._columns.values())
            columns = [name for name in file.schema_arrow.names if name in wanted]
            lacking = {self._image, self._split or self._image, *self._columns.values()} - set(columns)
            if lacking:
                raise DataError(
                    f"{self._files.names[number]}: no column {sorted(lacking)[0]!r}, as other files have"
                )
            self._require_same_classes(number, _features(file.schema_arrow))
            batches = file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False)
            yield from itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _unsound(self._files.names[number], error) from error

    def _require_same_classes(self, number: int, features: Mapping[str, list[str]]) -> None:
        """Raises DataError where a file numbers the classes otherwise than the first one with names does."""
        for axis, column in self._columns.items():
            names = tuple(features.get(column, ()))
            if names and names != self.class_names.get(axis):
                raise DataError(
                    f"{self._files.names[number]}: the numbers in its column {column!r} do not stand for the "
                    "same classes as in other files; write all files with the same class names"
                )

    def _open(self, number: int) -> Any:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise DataError(f"{self.root}: reading Parquet needs pip install pyarrow ({error})") from error
        try:
            return pyarrow.parquet.ParquetFile(
                self._files.open(number), buffer_size=1 << 20, pre_buffer=False
            )
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _unsound(self._files.names[number], error) from error


def _unsound(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())  # Arrow's messages have several lines, and bytes of the file
    return DataError(f"{name}: not a sound Parquet file ({reason.encode('unicode_escape').decode()})")


def _image_column(schema: Any, name: str) -> str:
    """The column of images. Raises DataError when there is none, or several without a usual name."""
    columns = [field.name for field in schema if _holds_images(field)]
    usual = [column for column in _IMAGE_COLUMNS if column in columns]
    if usual:
        return usual[0]
    if len(columns) != 1:
        has = f"several ({', '.join(columns)}); call one of them image" if columns else "none"
        raise DataError(f"{name}: needs one column of images, a struct of bytes and path, but has {has}")
    return columns[0]


def _holds_images(field: Any) -> bool:
    import pyarrow

    kind = field.type
    if pyarrow.types.is_struct(kind):
        return any(child.name == "bytes" for child in kind)
    return (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)) and field.name != KEY


def _features(schema: Any) -> dict[str, list[str]]:
    """Column -> class names, from the metadata that Hugging Face's datasets writes."""
    try:
        features = documents.parse((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {
        column: [str(name) for name in feature["names"]]
        for column, feature in features.items()
        if isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and isinstance(feature.get("names"), list)
    }


def _own_axes(schema: Any) -> dict[str, str]:
    """Axis -> column of a file that `tfrecords_tools.export` wrote; empty for others."""
    try:
        axes = documents.parse((schema.metadata or {}).get(AXES_METADATA, b"[]"))
    except ValueError:
        return {}
    return {axis: axis for axis in axes if axis in schema.names} if isinstance(axes, list) else {}


def _label_columns(schema: Any, features: Mapping[str, list[str]]) -> dict[str, str]:
    """Axis -> column: all columns with class names, else the first one that is called like a class."""
    columns: dict[str, str] = {}
    for column in schema.names:
        if column in features and column != SPLIT:
            columns.setdefault(labelled.axis_of(column, features[column]), column)
    if not columns:
        for column in labelled.CLASS_COLUMNS:
            if column in schema.names:
                columns.setdefault(labelled.axis_of(column), column)
    return columns
