"""Record numbers -> one uint8 batch, decoded here or by the processes of `decode_pool`.

The first images are decoded in the calling thread. Where there are many, processes are started
meanwhile, and take over as soon as they can.
"""

import contextlib
import os
import time

import numpy as np

from deepduel.decoding import bad_records, worker_pool
from deepduel.decoding.buffers import BatchBuffers, Buffer
from deepduel.decoding.decode_row import JPEG, OTHER, RAW, decode_row
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.read_ahead import ReadAhead
from deepduel.decoding.split import Split
from deepduel.decoding.worker import COLUMNS
from tfrecords_tools.format import records as record_format

_JPEG = record_format.ENCODINGS.index("jpeg")
_RAW = record_format.ENCODINGS.index("raw")
_CHUNK = 8  # images that are decoded here before the pool is looked for


class BatchDecoder:
    """Callable: record numbers int64 [B] -> uint8 [B, H, W, 3]. May be called by several threads at once.

    The returned array may be handed to TensorFlow, which takes it without a copy. Its memory
    is used again only once nothing refers to it any more.
    """

    def __init__(
        self, split: Split, decoding: DecodeOptions, *, threads: int | None = None, on_error: str = "fail"
    ):
        """Decodes with `threads` processes (default: as many as cores) once there is enough to do.

        With `on_error` "skip" an image that does not decode is black, see `faults`.
        """
        self._on_error = on_error
        self._split = split
        self._decoding = decoding
        self._processes = threads or len(os.sched_getaffinity(0))
        self._kinds = _kinds(split)
        self._buffers = BatchBuffers(shared=True)
        self._read_ahead = ReadAhead(split)

    def __call__(
        self, records: np.ndarray, *, rows: int | None = None, seeds: np.ndarray | None = None
    ) -> np.ndarray:
        """Decodes; with `rows` > len(records), the batch is padded with black images.

        Args:
          seeds: int32 [B, 2], from which `DecodeOptions.fit` "native" draws its crops; None: the centres.

        Raises:
          DataError: an image does not decode (unless on_error is "skip"), or its shard cannot be
            read; names the shard, in the first case record and key too. Or a process ended.
        """
        self._read_ahead(records)
        rows = len(records) if rows is None else rows
        batch = self._buffers.take((rows, *self._decoding.size, 3))
        batch.pixels[len(records) :] = 0
        kinds = self._kinds[records]
        done = 0
        while done < len(records):
            if pool := worker_pool.ready(self._processes):
                failed = self._decode_there(pool, records, kinds, seeds, batch, done)
                self._decode_here(records, kinds, seeds, batch.pixels, failed)  # says what is wrong
                break
            part = range(done, min(done + _CHUNK, len(records)))
            start = time.thread_time()
            self._decode_here(records, kinds, seeds, batch.pixels, part)
            worker_pool.spent(self._processes, time.thread_time() - start)
            done = part.stop
        return batch.pixels

    def rest(self) -> None:
        """Gives back the memory of its batches; the next call takes new one."""
        self._buffers.clear()

    def _decode_here(self, records, kinds, seeds, pixels: np.ndarray, part) -> None:
        """Decodes the rows in `part`."""
        part = list(part)
        encoded = self._split.images(records[part])
        sizes = self._split.sizes[records[part]].tolist()
        for row, data, size in zip(part, encoded, sizes, strict=True):
            seed = None if seeds is None else seeds[row].tolist()
            try:
                decode_row(data, int(kinds[row]), *size, self._decoding, pixels[row], seed)
            except (ValueError, OSError) as error:
                bad_records.found(self._split, int(records[row]), str(error), on_error=self._on_error)
                pixels[row] = 0

    def _decode_there(self, pool, records, kinds, seeds, batch: Buffer, first: int) -> list[int]:
        """Decodes the rows from `first` on; those that failed."""
        records = records[first:]
        table = np.zeros((len(records), len(COLUMNS)), np.int64)
        table[:, 0], table[:, 1], table[:, 2] = self._split.image_places(records)
        table[:, 3], table[:, 4:6] = kinds[first:], self._split.sizes[records]
        if seeds is not None:
            table[:, 6:8] = seeds[first:]
        with contextlib.ExitStack() as stack:
            opened = self._split.opened
            if not self._split.local:
                file = stack.enter_context(_fetched(self._split.images(records)))
                table[:, 0], table[:, 1] = 0, np.cumsum(table[:, 2]) - table[:, 2]
                opened = lambda _: contextlib.nullcontext([file])
            return pool.decode(table, opened, self._decoding, batch, first=first, seeded=seeds is not None)


def _kinds(split: Split) -> np.ndarray:
    """What `decode_row` must know of each record, uint8 [N]."""
    kinds = np.where(split.encoding == _RAW, np.uint8(RAW), np.uint8(OTHER))
    kinds[split.encoding == _JPEG] = JPEG
    return kinds


@contextlib.contextmanager
def _fetched(encoded: list[bytes]):
    """Images from another machine in a file in memory, one behind the other; its descriptor."""
    file = os.memfd_create("deepduel-encoded", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as writing:
            writing.writelines(encoded)
        yield file
    finally:
        os.close(file)
