"""Record numbers -> one uint8 batch, from a cache where it has the pixels, else decoded into it."""

import concurrent.futures
import os

import numpy as np

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.buffers import BatchBuffers
from deepduel.decoding.pixel_cache import PixelCache
from deepduel.decoding.split import Split

_FEWEST = 16  # rows that are worth a thread of their own


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
        self._buffers = BatchBuffers()
        self._helpers = max((threads or len(os.sched_getaffinity(0))) - callers, 0)
        self._pool = concurrent.futures.ThreadPoolExecutor(max(self._helpers, 1), "cache")

    def __call__(
        self, records: np.ndarray, *, rows: int | None = None, seeds: np.ndarray | None = None
    ) -> np.ndarray:
        """See BatchDecoder. Nothing cached depends on `seeds` (`ReadOptions.decoding` sees to it)."""
        self._cache.check()
        there = self._cache.there(records)
        if not there.any():
            batch = self._decode(records, rows=rows)
            self._keep(records, batch)
            return batch
        batch = self._buffers.take((len(records) if rows is None else rows, *self._size, 3)).pixels
        batch[len(records) :] = 0
        missing = np.flatnonzero(~there)
        if len(missing):
            decoded = self._decode(records[missing])
            batch[missing] = decoded
            self._keep(records[missing], decoded)
            for row in np.flatnonzero(there):
                self._cache.read(records[row : row + 1], batch[row : row + 1])
        else:
            self._decode.rest()  # as a rule there is nothing to decode any more
            self._copy(records, batch)
        return batch

    def _keep(self, records: np.ndarray, pixels: np.ndarray) -> None:
        for record, row in zip(records.tolist(), pixels, strict=False):  # pixels may be padded
            self._cache.write(record, None if record in self._split.bad else row)
        self._cache.settled()

    def _copy(self, records: np.ndarray, batch: np.ndarray) -> None:
        """As few and long copies as there are threads: each hand-over of the interpreter's lock costs."""
        rows = max(-(-len(records) // (self._helpers + 1)), _FEWEST)
        parts = [slice(at, min(at + rows, len(records))) for at in range(0, len(records), rows)]
        helpers = [self._pool.submit(self._cache.read, records[part], batch[part]) for part in parts[1:]]
        try:
            self._cache.read(records[parts[0]], batch[parts[0]])
        finally:
            concurrent.futures.wait(helpers)  # never give away a buffer that is still written to
        for helper in helpers:
            helper.result()
