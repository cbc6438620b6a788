"""Parquet files as Hugging Face writes image data sets: `datasets.load_dataset(FOLDER)` reads them."""

import contextlib
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from tfrecords_tools import atomic
from tfrecords_tools.errors import DataError
from tfrecords_tools.exporting.stored_images import StoredImage, class_numbers
from tfrecords_tools.format import records
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.sources.parquet import AXES_METADATA

_ROWS = 100  # in a row group at most, Hugging Face's number for images
_GROUP_BYTES = 64_000_000


class Parquet:
    """Writes data/SPLIT-00000-of-00004.parquet, …"""

    def __init__(self, folder: pathlib.Path, manifest: Manifest, max_bytes: int):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise DataError(f"--format=parquet needs pip install pyarrow ({error})") from error
        self._pyarrow = pyarrow
        self._folder, self._numbers, self._max_bytes = folder / "data", class_numbers(manifest), max_bytes
        self._folder.mkdir()
        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        fields = [
            ("image", image),
            *((axis, pyarrow.int64()) for axis in manifest.axes),
            ("key", pyarrow.string()),
        ]
        metadata = {
            b"huggingface": json.dumps(_features(manifest)),
            AXES_METADATA: json.dumps(list(manifest.axes)),
        }
        self._schema = pyarrow.schema(fields, metadata)

    def write(self, images: Iterable[StoredImage]) -> None:
        """Writes the images of one split. Raises DataError for a key that is not UTF-8."""
        paths: list[pathlib.Path] = []
        split, size = "", self._max_bytes
        with contextlib.ExitStack() as stack:
            for group in _row_groups(images, min(_GROUP_BYTES, self._max_bytes)):
                if size >= self._max_bytes:
                    stack.close()  # and with it the file before this one
                    paths.append(self._folder / f"{len(paths)}.partial")
                    writer, size = stack.enter_context(self._opened(paths[-1])), 0
                writer.write_table(self._pyarrow.Table.from_pylist(list(map(self._row, group)), self._schema))
                split, size = group[0].split, size + sum(len(image.data) for image in group)
        for number, path in enumerate(paths):
            path.rename(self._folder / f"{split}-{number:05d}-of-{len(paths):05d}.parquet")

    @contextlib.contextmanager
    def _opened(self, path: pathlib.Path) -> Iterator[Any]:
        with path.open("wb") as file:
            with self._pyarrow.parquet.ParquetWriter(file, self._schema) as writer:
                yield writer
            atomic.sync(file)

    def _row(self, image: StoredImage) -> dict[str, Any]:
        try:
            key = image.key.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"the image {records.key_shown(image.key)}: its key is not UTF-8, as Parquet needs it; "
                "export with --format=webdataset or folder"
            ) from error
        labels = {
            axis: -1 if name is None else self._numbers[axis][name] for axis, name in image.labels.items()
        }
        return {"image": {"bytes": image.data, "path": key.rpartition("/")[2]}, "key": key, **labels}

    def finish(self) -> str:
        """Nothing is left to be written. Returns the flags of a conversion."""
        return ""


def _row_groups(images: Iterable[StoredImage], max_bytes: int) -> Iterator[list[StoredImage]]:
    group: list[StoredImage] = []
    size = 0
    for image in images:
        group.append(image)
        size += len(image.data)
        if len(group) == _ROWS or size >= max_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def _features(manifest: Manifest) -> dict[str, Any]:
    """The metadata of Hugging Face's datasets."""
    classes = {axis: {"names": list(names), "_type": "ClassLabel"} for axis, names in manifest.axes.items()}
    return {
        "info": {
            "features": {"image": {"_type": "Image"}, **classes, "key": {"dtype": "string", "_type": "Value"}}
        }
    }
