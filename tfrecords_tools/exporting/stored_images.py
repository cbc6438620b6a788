"""The images of a data folder, one after another, as they are stored."""

import io
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.images.stored import stored_pixels

ENDINGS = {"jpeg": "jpg", "png": "png"}


class StoredImage(NamedTuple):
    """One record.

    Attributes:
      key, split: as in the shards.
      labels: axis -> name; None for no label.
      data: the encoded image: the record's own bytes, or PNG where it has raw pixels.
      encoding: "jpeg" or "png".
    """

    key: bytes
    split: str
    labels: dict[str, str | None]
    data: bytes
    encoding: str


def read(manifest: Manifest, data_dir: str, split: str) -> Iterator[StoredImage]:
    """All images of a split, in the order of their records. Raises DataError for a damaged shard."""
    folder = storage.open_folder(data_dir)
    for shard in manifest.splits[split].shards:
        where = f"{folder.root}/{shard.file}"
        data = folder.view(shard.file, entire=True)
        try:
            table = records.load_table(folder.read(f"{shard.file}.npy"), len(manifest.axes))
            for row in table:
                start = int(row["offset"]) + records.LENGTH_BYTES
                end = int(row["offset"] + row["size"]) - records.FOOTER_BYTES
                payload = bytes(data[start:end])
                crc = int.from_bytes(data[end : end + records.FOOTER_BYTES], "little")
                if records.masked_crc(payload) != crc:
                    raise ValueError(
                        f"the checksum of the record at byte {int(row['offset'])} does not match"
                    )
                image, key, labels = records.parse(payload)
                encoding = records.ENCODINGS[row["encoding"]]
                if encoding == "raw":
                    image, encoding = _png(image, int(row["height"]), int(row["width"])), "png"
                names = {axis: _name(manifest, axis, labels.get(axis, -1)) for axis in manifest.axes}
                yield StoredImage(key, split, names, image, encoding)
        except (ValueError, IndexError, OSError) as error:
            raise DataError(
                f"{where}: {error}; run python -m tfrecords_tools.verify --data_dir={folder.root}"
            ) from error


def class_numbers(manifest: Manifest) -> dict[str, dict[str, int]]:
    """{axis: {class name: its number}}."""
    return {
        axis: {name: number for number, name in enumerate(names)} for axis, names in manifest.axes.items()
    }


def _name(manifest: Manifest, axis: str, label: int) -> str | None:
    names = manifest.axes[axis]
    if not records.NO_LABEL <= label < len(names):
        raise ValueError(f"an image has the label {label} on {axis}, which has {len(names)} classes")
    return None if label == records.NO_LABEL else names[label]


def _png(pixels: bytes, height: int, width: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(stored_pixels(pixels, "raw", height, width)).save(stream, "PNG")
    return stream.getvalue()
