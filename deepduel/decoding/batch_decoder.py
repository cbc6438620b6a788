"""Record numbers -> one uint8 batch, decoded in this process or by a pool of worker processes.

The first images are decoded in the calling thread. Where there are many, worker processes are started
meanwhile, and take over as soon as they are ready.
"""

import contextlib
import time
from collections.abc import Iterable

import numpy as np

from deepduel.decoding import bad_records, worker_pool
from deepduel.decoding.buffers import BatchBuffers, Buffer
from deepduel.decoding.image import DecodeOptions, decode_image
from deepduel.decoding.read_ahead import ReadAhead
from deepduel.decoding.split import Split
from deepduel.decoding.worker import COLUMNS
from tfrecords_tools import host_cpus
from tfrecords_tools.format import records as record_format

_CHUNK = 8  # images decoded in this process between two looks at whether the pool is ready


class BatchDecoder:
    """Callable: record numbers int64 [B] -> uint8 [B, H, W, 3]. Several threads may call it at once.

    The returned array may be handed to TensorFlow, which uses it without a copy. Its memory is reused
    only once nothing refers to it any more.
    """

    def __init__(
        self, split: Split, options: DecodeOptions, *, threads: int | None = None, on_error: str = "fail"
    ) -> None:
        """Decodes with `threads` processes (default: one per core) once there is enough to do.

        Args:
          on_error: "fail" raises at an image that does not decode; "skip" makes its row black, see
            `bad_records`.
        """
        self._on_error = on_error
        self._split = split
        self._options = options
        self._processes = threads or host_cpus.available()
        self._buffers = BatchBuffers(shared=True)
        self._read_ahead = ReadAhead(split)
        self._pool: worker_pool.WorkerPool | None = None  # kept, so that it does not end between two batches

    def __call__(
        self, records: np.ndarray, *, rows: int | None = None, seeds: np.ndarray | None = None
    ) -> np.ndarray:
        """Decodes a batch.

        Args:
          records: int64 [B].
          rows: rows of the result; those beyond len(records) are black. Default: len(records).
          seeds: int32 [B, 2], from which fit "native" draws its crops; None: the centres.

        Returns:
          uint8 [rows, H, W, 3].

        Raises:
          DataError: an image does not decode (unless on_error is "skip"), or its shard cannot be
            read; names the shard, in the first case record and key too. Or a worker process ended.
        """
        self._read_ahead(records)
        rows = len(records) if rows is None else rows
        batch = self._buffers.take((rows, *self._options.size, 3))
        batch.pixels[len(records) :] = 0
        done = 0
        while done < len(records):
            pool = self._pool = worker_pool.shared(self._processes)
            if pool is not None and pool.ready.is_set():
                failed = self._decode_in_pool(pool, records, seeds, batch, done)
                self._decode_rows(records, seeds, batch.pixels, failed)  # says what is wrong with them
                break
            chunk = range(done, min(done + _CHUNK, len(records)))
            start = time.thread_time()
            self._decode_rows(records, seeds, batch.pixels, chunk)
            self._pool = worker_pool.spent(self._processes, time.thread_time() - start)
            done = chunk.stop
        return batch.pixels

    def release_memory(self) -> None:
        """Releases the memory kept for further batches; the next call allocates anew."""
        self._buffers.clear()

    def _decode_rows(
        self, records: np.ndarray, seeds: np.ndarray | None, pixels: np.ndarray, rows: Iterable[int]
    ) -> None:
        """Decodes these rows in this process."""
        rows = list(rows)
        encoded = self._split.images(records[rows])
        sizes = self._split.sizes[records[rows]].tolist()
        encodings = self._split.encoding[records[rows]].tolist()
        for row, data, encoding, (height, width) in zip(rows, encoded, encodings, sizes, strict=True):
            name = record_format.ENCODINGS[encoding]
            seed = None if seeds is None else seeds[row].tolist()
            try:
                decode_image(data, name, height, width, self._options, pixels[row], seed)
            except (ValueError, OSError, MemoryError) as error:
                reason = str(error) or "decoding it needs more memory than is available"
                bad_records.report(self._split, int(records[row]), reason, on_error=self._on_error)
                pixels[row] = 0

    def _decode_in_pool(
        self,
        pool: worker_pool.WorkerPool,
        records: np.ndarray,
        seeds: np.ndarray | None,
        batch: Buffer,
        first: int,
    ) -> list[int]:
        """Decodes the rows from `first` on; returns those that failed."""
        records = records[first:]
        table = np.zeros((len(records), len(COLUMNS)), np.int64)
        table[:, 0], table[:, 1], table[:, 2] = self._split.image_places(records)
        table[:, 3], table[:, 4:6] = self._split.encoding[records], self._split.sizes[records]
        if seeds is not None:
            table[:, 6:8] = seeds[first:]
        seeded = seeds is not None
        if self._split.remote is None:
            return pool.decode(table, self._split.opened, self._options, batch, first=first, seeded=seeded)
        with self._split.remote.placed(*self._split.image_places(records)) as (files, numbers, places):
            table[:, 0], table[:, 1] = numbers, places
            opened = lambda numbers: contextlib.nullcontext([files[number] for number in numbers])
            return pool.decode(table, opened, self._options, batch, first=first, seeded=seeded)
