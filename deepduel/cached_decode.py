"""Record numbers -> one uint8 batch, from a cache where it has the pixels, else decoded into it."""

import concurrent.futures
import os
from collections.abc import Iterator

import numpy as np

from deepduel.decode import BatchDecoder
from deepduel.pixel_cache import PixelCache
from deepduel.shards import Split

_CHUNK = 16  # rows per task


class CachedDecoder:
    """Callable, as BatchDecoder: int64 [B] -> uint8 [B, H, W, 3]. Several threads may call it at once."""

    def __init__(
        self,
        split: Split,
        cache: PixelCache,
        decode: BatchDecoder,
        size: tuple[int, int],
        *,
        threads: int | None = None,
        callers: int = 1,
    ):
        """Copies with `threads` in all (default: all cores), the `callers` that call at once among them."""
        self._split = split
        self._cache = cache
        self._decode = decode
        self._size = size
        self._helpers = max((threads or len(os.sched_getaffinity(0))) - callers, 0)
        self._pool = concurrent.futures.ThreadPoolExecutor(max(self._helpers, 1), "cache")

    def __call__(
        self, records: np.ndarray, *, rows: int | None = None, seeds: np.ndarray | None = None
    ) -> np.ndarray:
        """See BatchDecoder. Nothing cached depends on `seeds` (`Reading.decoding` sees to it)."""
        self._cache.check()
        there = self._cache.there(records)
        if not there.any():
            batch = self._decode(records, rows=rows)
            self._keep(records, batch)
            return batch
        batch = self._decode.buffers.take((len(records) if rows is None else rows, *self._size, 3)).pixels
        batch[len(records) :] = 0
        missing = np.flatnonzero(~there)
        if len(missing):
            decoded = self._decode(records[missing])
            batch[missing] = decoded
            self._keep(records[missing], decoded)
            for row in np.flatnonzero(there):
                self._cache.read(records[row : row + 1], batch[row : row + 1])
        else:
            self._copy(records, batch)
        return batch

    def _keep(self, records: np.ndarray, pixels: np.ndarray) -> None:
        for record, row in zip(records.tolist(), pixels, strict=False):  # pixels may be padded
            self._cache.write(record, None if record in self._split.bad else row)
        self._cache.settled()

    def _copy(self, records: np.ndarray, batch: np.ndarray) -> None:
        parts = [slice(at, min(at + _CHUNK, len(records))) for at in range(0, len(records), _CHUNK)]
        chunks = iter([(records[part], batch[part]) for part in parts])
        helpers = [self._pool.submit(self._copy_chunks, chunks) for _ in range(self._helpers)]
        try:
            self._copy_chunks(chunks)
        finally:
            started = [helper for helper in helpers if not helper.cancel()]
            concurrent.futures.wait(started)  # never give away a buffer that is still written to
        for helper in started:
            helper.result()

    def _copy_chunks(self, chunks: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        for records, rows in chunks:
            self._cache.read(records, rows)
