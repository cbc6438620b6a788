"""Record numbers -> one uint8 batch, from a cache where it has the pixels, else decoded into it."""

import concurrent.futures

import numpy as np

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.buffers import BatchBuffers
from deepduel.decoding.pixel_cache import PixelCache
from deepduel.decoding.split import Split
from tfrecords_tools import host_cpus

_FEWEST = 16  # rows that are worth a thread of their own


class CachedDecoder:
    """Callable like BatchDecoder: int64 [B] -> uint8 [B, H, W, 3]. Several threads may call it at once."""

    def __init__(
        self,
        split: Split,
        cache: PixelCache,
        decode: BatchDecoder,
        size: tuple[int, int],
        *,
        threads: int | None = None,
        callers: int = 1,
    ) -> None:
        """Makes a decoder that asks `cache` first.

        Args:
          decode: decodes the records that are not in the cache.
          size: (height, width) of the rows, in pixels.
          threads: threads that copy rows, the callers' own included; default: one per core.
          callers: threads that call at the same time.
        """
        self._split = split
        self._cache = cache
        self._decode = decode
        self._size = size
        self._buffers = BatchBuffers()
        self._helpers = max((threads or host_cpus.available()) - callers, 0)
        self._pool = concurrent.futures.ThreadPoolExecutor(max(self._helpers, 1), "cache")

    def __call__(
        self, records: np.ndarray, *, rows: int | None = None, seeds: np.ndarray | None = None
    ) -> np.ndarray:
        """See BatchDecoder. Cached pixels do not depend on `seeds`: `ReadOptions.decoding` ensures it."""
        self._cache.check()
        cached = self._cache.has(records)
        if not cached.any():
            batch = self._decode(records, rows=rows)
            self._store(records, batch)
            return batch
        batch = self._buffers.take((len(records) if rows is None else rows, *self._size, 3)).pixels
        batch[len(records) :] = 0
        missing = np.flatnonzero(~cached)
        if len(missing):
            decoded = self._decode(records[missing])
            batch[missing] = decoded
            self._store(records[missing], decoded)
            for row in np.flatnonzero(cached):
                self._cache.read(records[row : row + 1], batch[row : row + 1])
        else:
            self._decode.release_memory()  # as a rule nothing is left to decode
            self._copy(records, batch)
        return batch

    def _store(self, records: np.ndarray, pixels: np.ndarray) -> None:
        for record, row in zip(records.tolist(), pixels, strict=False):  # pixels may be padded
            self._cache.write(record, None if record in self._split.bad else row)
        self._cache.finish_if_complete()

    def _copy(self, records: np.ndarray, batch: np.ndarray) -> None:
        """As few and long copies as there are threads: each change of threads costs time."""
        rows = max(-(-len(records) // (self._helpers + 1)), _FEWEST)
        parts = [slice(start, min(start + rows, len(records))) for start in range(0, len(records), rows)]
        copies = [self._pool.submit(self._cache.read, records[part], batch[part]) for part in parts[1:]]
        try:
            self._cache.read(records[parts[0]], batch[parts[0]])
        finally:
            concurrent.futures.wait(copies)  # never hand out a buffer that is still written to
        for copy in copies:
            copy.result()
