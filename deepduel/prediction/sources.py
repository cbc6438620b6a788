"""Images to predict -> uint8 batches, by default sorted by the names of the images. A batch is a dict:

    images   uint8  [B, H, W, 3]   upright RGB; black where the image is unreadable or padding
    numbers  int64  [B]            index of the image in its source; -1 for padding
    reasons  string [B]            the reason why an image is unreadable; b"" for a readable one

An image gives the same pixels as a file and as a record in shards, as for validation during training.
"""

import concurrent.futures
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.buffers import BatchBuffers
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
from deepduel.prediction import fetching, file_decoding
from deepduel.reading.batch import options
from deepduel.reading.host_calls import HostFunction
from deepduel.reading.random_reader import LARGE_BATCH_BYTES
from tfrecords_tools import host_cpus
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest, records, storage
from tfrecords_tools.images import image as images
from tfrecords_tools.images.encoding_options import KEEP, EncodingOptions
from tfrecords_tools.listing import candidates
from tfrecords_tools.progress import counted

_CHUNK = 8  # images per task of the pool: a compromise between overhead and load balance


class Source(Protocol):
    """A sequence of images.

    Attributes:
      rejected: (name, reason) of the files that are not read as images, sorted by name.
    """

    rejected: list[tuple[str, str]]

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """The name of an image, which identifies it in the output."""

    def read(self, numbers: np.ndarray, rows: int) -> tuple[np.ndarray, list[str]]:
        """Image indices [n <= rows] -> (uint8 [rows, H, W, 3], n reasons, "" for a readable image)."""


def batches(source: Source, batch_size: int, decoding: DecodeOptions) -> tf.data.Dataset:
    """A data set of every image once, in order, in batches of the same shape, see the top of this module."""
    rows = max(1, min(batch_size, len(source)))
    height, width = decoding.size

    def load(number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = int(number) * rows
        numbers = np.arange(first, min(first + rows, len(source)), dtype=np.int64)
        pixels, reasons = source.read(numbers, rows)
        pad = rows - len(numbers)
        coded = [reason.encode("utf-8", "backslashreplace") for reason in reasons] + [b""] * pad
        return pixels, np.pad(numbers, (0, pad), constant_values=-1), np.array(coded, object)

    load_in_graph = HostFunction(load)

    @tf.autograph.experimental.do_not_convert  # it has no Python control flow on tensors
    def batch(number: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, numbers, reasons = load_in_graph([number], [tf.uint8, tf.int64, tf.string])
        pixels.set_shape((rows, height, width, 3))
        numbers.set_shape((rows,))
        reasons.set_shape((rows,))
        return {"images": pixels, "numbers": numbers, "reasons": reasons}

    # One call decodes a batch on all cores; a second one keeps them busy while the first finishes.
    parallel = 2 if rows * height * width * 3 < LARGE_BATCH_BYTES else 1
    numbers = tf.data.Dataset.range(-(-len(source) // rows))
    return numbers.map(batch, num_parallel_calls=parallel, deterministic=True).with_options(options())


class Files:
    """Image files, read and decoded by a pool of threads.

    Attributes:
      rejected: (name, reason) of the files that are not read as images, sorted by name.
      system: the hidden and system directories that are passed over.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        decoding: DecodeOptions,
        *,
        encoding: EncodingOptions = KEEP,
        threads: int | None = None,
        keep_order: bool = False,
    ):
        """Finds the files.

        Args:
          patterns: folders, searched with their subfolders (names are relative to the folder), files, glob
            patterns and URLs (names are the paths).
          encoding: the conversion's, which the pixels are as after.
          threads: number of threads that read; None takes one per core.
          keep_order: whether the images stay in the order of the patterns, each as often as it is named; by
            default they are sorted by name, and each is there once.

        Raises:
          DataError: a pattern matches nothing, there are no images, or two images have the same name.
        """
        self.rejected: list[tuple[str, str]] = []
        self.system: list[bytes] = []
        paths: dict[bytes, bytes] = {}
        self._names: list[bytes] = []
        for pattern in patterns:
            for name, path in self._find(pattern):
                if paths.setdefault(name, path) != path:
                    raise DataError(
                        f"--images: two images in different folders have the name {records.key_shown(name)}; "
                        "name their common parent folder, or predict the folders separately"
                    )
                self._names.append(name)
        if not paths:
            also = f", only {counted(len(self.rejected), 'other file')}" if self.rejected else ""
            raise DataError(f"--images={','.join(patterns)}: there are no images there{also}")
        if not keep_order:
            self._names = sorted(paths)
        self._paths = [paths[name] for name in self._names]
        self.rejected.sort()
        self._decoding, self._encoding = decoding, encoding
        threads = threads or host_cpus.available()
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "read")
        self._buffers = BatchBuffers()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, number: int) -> str:
        return records.key_text(self._names[number])

    def read(self, numbers: np.ndarray, rows: int) -> tuple[np.ndarray, list[str]]:
        batch = self._buffers.take((rows, *self._decoding.size, 3)).pixels
        batch[len(numbers) :] = 0
        tasks = [
            self._pool.submit(self._read_some, numbers[start : start + _CHUNK], batch[start : start + _CHUNK])
            for start in range(0, len(numbers), _CHUNK)
        ]
        return batch, [reason for task in tasks for reason in task.result()]

    def _read_some(self, numbers: np.ndarray, batch: np.ndarray) -> list[str]:
        return [self._read_one(number, out) for number, out in zip(numbers.tolist(), batch, strict=False)]

    def _read_one(self, number: int, out: np.ndarray) -> str:
        try:
            data = fetching.read(self._paths[number], limit=images.MAX_FILE_BYTES)
            rejected = file_decoding.decode(data, self._decoding, out, self._encoding)
        except OSError as error:
            rejected = images.Rejected(f"unreadable file: {error.strerror or error}")
        except MemoryError:
            rejected = images.Rejected("decoding it needs more memory than is available")
        if rejected is not None:
            out[...] = 0
            return rejected.reason
        return ""

    def _find(self, pattern: str) -> Iterator[tuple[bytes, bytes]]:
        """Yields (name, path) of each image that the pattern matches; the other files go to `rejected`."""
        remote = storage.is_remote(pattern)
        if fetching.is_folder(pattern) if remote else pathlib.Path(pattern).is_dir():
            for file, kind, reason in candidates.walk(storage.open_folder(pattern)):
                if kind is candidates.Kind.IMAGE:
                    yield file.key, os.fsencode(pattern).rstrip(b"/") + b"/" + file.key
                elif kind is candidates.Kind.SYSTEM:
                    self.system.append(file.key)
                elif kind is not candidates.Kind.EMPTY_DIRECTORY:
                    self.rejected.append((records.key_text(file.key), reason))
            return
        if remote:
            yield os.fsencode(pattern), os.fsencode(pattern)
            return
        literal = pathlib.Path(pattern).exists()
        matches = [pattern] if literal else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207, also absolute patterns
        if not matches:
            raise DataError(
                f"--images={pattern}: no such folder or file exists, and no file matches it as a pattern"
            )
        for match in matches:
            if pathlib.Path(match).is_file():
                yield os.fsencode(match), os.fsencode(match)
            elif not pathlib.Path(match).is_dir():
                self.rejected.append((match, "not a regular file"))


class Shards:
    """The records of one split, sorted by key.

    Attributes:
      rejected, system: empty; records that do not decode are reported by `read`.
    """

    def __init__(
        self, split: Split, decoding: DecodeOptions, *, threads: int | None = None, on_error: str = "skip"
    ):
        """Opens the records.

        Args:
          threads: number of threads that decode; None takes one per core.
          on_error: "skip", or "fail": then reading raises DataError at a record that does not decode.
        """
        if not len(split):
            raise DataError(f"{split.data_dir}: split {split.name!r} has no images")
        self.rejected: list[tuple[str, str]] = []
        self.system: list[bytes] = []
        self._names = [self._name(split, number) for number in range(len(split))]
        self._order = np.array(sorted(range(len(split)), key=self._names.__getitem__), np.int64)
        self._split = split
        self._decode = BatchDecoder(split, decoding, threads=threads, on_error=on_error)

    def __len__(self) -> int:
        return len(self._split)

    def name(self, number: int) -> str:
        return records.key_text(self._names[self._order[number]])

    def read(self, numbers: np.ndarray, rows: int) -> tuple[np.ndarray, list[str]]:
        indices = self._order[numbers]
        pixels = self._decode(indices, rows=rows)
        return pixels, [self._split.bad.get(record, "") for record in indices.tolist()]

    def _name(self, split: Split, record: int) -> bytes:
        try:
            return split.key(record)
        except DataError:  # the record is damaged, so its image will be unreadable as well
            return split.where(record).encode()


def open_source(
    patterns: Sequence[str],
    decoding: DecodeOptions,
    *,
    encoding: EncodingOptions = KEEP,
    split: str | None = None,
    threads: int | None = None,
    on_error: str = "skip",
    keep_order: bool = False,
) -> Files | Shards:
    """Opens folders, files and glob patterns, or with `split` one folder of shards; see `Files` and `Shards`.

    Raises:
      UsageError: `split` is missing for a folder of shards, or is set for anything else.
      DataError: there are no images.
    """
    shards = [pattern for pattern in patterns if pathlib.Path(pattern, manifest.FILE_NAME).is_file()]
    if not shards:
        if split is not None:
            raise UsageError(
                f"--split={split} needs a folder of shards, but --images={','.join(patterns)} is none; "
                "remove --split"
            )
        return Files(patterns, decoding, encoding=encoding, threads=threads, keep_order=keep_order)
    if len(patterns) > 1:
        raise UsageError(
            f"--images: a folder of shards must be the only --images; remove the others or {shards[0]}"
        )
    if split is None:
        names = ", ".join(sorted(manifest.load(shards[0]).splits))
        raise UsageError(
            f"--images={shards[0]} is a folder of shards; choose one of its splits with --split ({names})"
        )
    return Shards(Split(shards[0], split), decoding, threads=threads, on_error=on_error)
