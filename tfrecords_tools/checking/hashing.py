"""Hashes of images, by which duplicates are found: of their bytes, and of what they show.

Perceptual hash: ImageHash's `phash`, 64 bits of the lowest frequencies.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tfrecords_tools import workers
from tfrecords_tools.checking import contact_sheets
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.folder import DamagedMember, Source
from tfrecords_tools.format.manifest import Manifest, cell_name
from tfrecords_tools.images import image
from tfrecords_tools.images.encoding_options import EncodingOptions
from tfrecords_tools.images.stored import stored_pixels
from tfrecords_tools.listing.listing import Listing

_CHUNK = 256  # images per job


class StoredImage(NamedTuple):
    """An image in shards: its split, its key, and its labels by name, such as "fake/animals"."""

    split: str
    key: str
    labels: str


@dataclasses.dataclass
class Hashes:
    """Hashes of n images.

    Attributes:
      content: [n, 2] uint64, BLAKE2b of the bytes.
      phash: [n] uint64, perceptual hash; undefined where `has_phash` is false.
      has_phash: [n] bool, false where the image could not be decoded.
    """

    content: np.ndarray
    phash: np.ndarray
    has_phash: np.ndarray


def of_listing(
    listing: Listing,
    *,
    perceptual: bool,
    processes: int,
    encoding: EncodingOptions | None = None,
    on_progress: Callable[[int, int, int], None] = lambda images, size, failed: None,
) -> Hashes:
    """Reads every image of a listing, and decodes it if `perceptual`.

    With an `encoding`, the hashes are of the image as it would be stored, as `of_folder`'s are.
    """
    jobs = (
        (start, [_place(listing, index) for index in range(start, min(start + _CHUNK, len(listing)))])
        for start in range(0, len(listing), _CHUNK)
    )
    pool = workers.WorkerPool(
        _hash_files, (listing.source, perceptual, encoding), workers=max(1, processes), on_tick=on_progress
    )
    return _collect(((start, rows) for (start, _), rows in _run(pool, jobs)), len(listing))


def of_folder(
    manifest: Manifest,
    data_dir: str,
    *,
    processes: int,
    perceptual: bool = True,
    on_progress: Callable[[int, int, int], None] = lambda images, size, failed: None,
) -> tuple[Hashes, list[StoredImage]]:
    """Hashes of all stored images, and which they are."""
    jobs, start = [], 0
    for split, stored in manifest.splits.items():
        for part in stored.shards:
            jobs.append((start, split, part.file))
            start += part.records
    pool = workers.WorkerPool(
        _hash_shard,
        (data_dir, len(manifest.axes), perceptual),
        workers=max(1, processes),
        on_tick=on_progress,
    )
    names = [StoredImage("", "", "")] * start
    results = []
    for (first, split, _), (rows, keys) in _run(pool, jobs):
        results.append((first, rows))
        names[first : first + len(keys)] = [
            StoredImage(split, key, cell_name(manifest.axes, labels)) for key, labels in keys
        ]
    return _collect(results, start), names


def _run(pool: workers.WorkerPool, jobs: Iterable) -> Iterator:
    try:
        yield from pool.run(jobs)
    except workers.WorkerDied as death:
        raise DataError(
            f"a worker died twice ({death.how}) while hashing images; use fewer --workers"
        ) from death


def _collect(results: Iterable[tuple[int, list]], count: int) -> Hashes:
    hashes = Hashes(np.zeros((count, 2), np.uint64), np.zeros(count, np.uint64), np.zeros(count, bool))
    for start, rows in results:
        for number, (content, phash) in enumerate(rows, start):
            hashes.content[number] = np.frombuffer(content, np.uint64)
            if phash is not None:
                hashes.phash[number], hashes.has_phash[number] = phash, True
    return hashes


def _place(listing: Listing, index: int) -> tuple[bytes, int, int]:
    row = listing.rows[index]
    return listing.key(index), int(row["size"]), int(row["place"])


def _hash_files(
    context: tuple[Source, bool, EncodingOptions | None],
    job: tuple[int, list[tuple[bytes, int, int]]],
    counts: workers.Counts,
) -> list:
    source, perceptual, encoding = context
    rows = []
    for key, size, place in job[1]:
        data = b"unreadable: " + key  # convert reports it
        if size <= image.MAX_FILE_BYTES:
            with contextlib.suppress(OSError, DamagedMember):
                data = source.read_image(key, size, place)
        counts.add(1, len(data))
        stored: bytes = data
        pixels: Any = None
        if encoding:
            checked = image.check(data, encoding)
            if isinstance(checked, image.Checked):
                stored, pixels = checked.data, _pixels(checked) if perceptual else None
        elif perceptual:
            pixels = image.pixels(data)
        rows.append((_digest(stored), phash(pixels) if isinstance(pixels, np.ndarray) else None))
    return rows


def _pixels(checked: image.Checked) -> np.ndarray:
    return stored_pixels(checked.data, checked.encoding, checked.height, checked.width)


def _hash_shard(
    context: tuple[str, int, bool], job: tuple[int, str, str], counts: workers.Counts
) -> tuple[list, list]:
    data_dir, axes, perceptual = context
    store, rows, keys = storage.open_folder(data_dir), [], []
    data = store.view(job[2], entire=True)
    table = records.load_table(store.read(f"{job[2]}.npy"), axes)
    for row, payload in zip(table, records.read_payloads(data), strict=True):
        encoded, key, _ = records.parse(payload)
        seen: int | None = None
        if perceptual:
            with contextlib.suppress(ValueError):  # it does not decode
                seen = phash(contact_sheets.pixels(data, row))
        rows.append((_digest(encoded), seen))
        keys.append((records.key_text(key), row["labels"].tolist()))
        counts.add(1, len(encoded))
    return rows, keys


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def phash(pixels: np.ndarray) -> int:
    """The perceptual hash of an image, uint8 [H, W, 3]: 64 bits."""
    import imagehash  # it imports SciPy, so only when needed

    bits = imagehash.phash(Image.fromarray(pixels)).hash.reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
