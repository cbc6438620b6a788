"""Record numbers -> one uint8 batch, decoded by a pool of threads into one buffer.

simplejpeg releases the interpreter lock while libjpeg-turbo works, so plain threads use all
cores. Each caller decodes its own batch, and all further threads help whichever batch is under
way, so the memory in flight does not grow with the number of cores.
"""

import concurrent.futures
import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import simplejpeg

from deepduel import faults
from deepduel.fitting import Decoding, decode_jpeg, fit_image
from deepduel.shards import Split
from tfrecords_tools import image as images
from tfrecords_tools import records as record_format

_JPEG = record_format.ENCODINGS.index("jpeg")
_RAW = record_format.ENCODINGS.index("raw")
_CHUNK = 8  # images per task: long enough to make the hand-over cheap, short enough to even out
_ALIGNMENT = 64  # bytes; TensorFlow takes a NumPy array without copying when it starts on this


class BatchDecoder:
    """Callable: record numbers int64 [B] -> uint8 [B, H, W, 3]. May be called by several threads at once.

    The returned array may be handed to TensorFlow, which takes it without a copy. Its memory
    is used again only once nothing refers to it any more.
    """

    def __init__(
        self,
        split: Split,
        decoding: Decoding,
        *,
        threads: int | None = None,
        callers: int = 1,
        on_error: str = "fail",
    ):
        """Decodes with `threads` in all (default: all cores), the `callers` that call at once among them.

        With `on_error` "skip" an image that does not decode is black, see `faults`.
        """
        self._on_error = on_error
        self._split = split
        self._decoding = decoding
        self._helpers = max((threads or len(os.sched_getaffinity(0))) - callers, 0)
        self._pool = concurrent.futures.ThreadPoolExecutor(max(self._helpers, 1), "decode")
        self.buffers = BatchBuffers()

    def __call__(
        self, records: np.ndarray, *, rows: int | None = None, seeds: np.ndarray | None = None
    ) -> np.ndarray:
        """Decodes; with `rows` > len(records), the batch is padded with black images.

        Args:
          seeds: int32 [B, 2], from which `Decoding.fit` "native" draws its crops; None: the centres.

        Raises:
          DataError: an image does not decode (unless on_error is "skip"), or its shard cannot be
            read; names the shard, in the first case record and key too.
        """
        rows = len(records) if rows is None else rows
        batch = self.buffers.take((rows, *self._decoding.size, 3))
        batch[len(records) :] = 0
        plain = self._split.encoding[records] == _JPEG
        plain &= (self._split.sizes[records] == self._decoding.size).all(axis=1)
        seeds = [None] * len(records) if seeds is None else seeds.tolist()
        encoded = self._split.images(records)
        todo = list(zip(records.tolist(), encoded, plain.tolist(), seeds, batch, strict=False))
        # The caller and its helpers take chunks off one iterator: nobody waits for a hand-over, and
        # a helper that is still busy with another batch is not missed.
        chunks = iter([todo[at : at + _CHUNK] for at in range(0, len(todo), _CHUNK)])
        helpers = [self._pool.submit(self._decode, chunks) for _ in range(self._helpers)]
        try:
            self._decode(chunks)
        finally:
            started = [helper for helper in helpers if not helper.cancel()]
            concurrent.futures.wait(started)  # never give away a buffer that is still written to
        for helper in started:
            helper.result()
        return batch

    def _decode(self, chunks: Iterator[list[tuple]]) -> None:
        fast, shape = self._decoding.fast, (*self._decoding.size, 3)
        for chunk in chunks:
            for record, data, plain, seed, out in chunk:
                try:
                    if not plain:
                        self._decode_other(record, data, seed, out)
                    elif simplejpeg.decode_jpeg(data, "RGB", fast, fast, buffer=out).shape != shape:
                        raise ValueError(f"its size is not the {shape[:2]} pixels that the index says")
                except (ValueError, OSError) as error:
                    faults.found(self._split, record, str(error), on_error=self._on_error)
                    out[:] = 0

    def _decode_other(self, record: int, data: bytes, seed: Sequence[int] | None, out: np.ndarray) -> None:
        """An image that is no JPEG, or of another size than the batch."""
        encoding, (height, width) = self._split.encoding[record], self._split.sizes[record].tolist()
        if encoding == _JPEG:
            decode_jpeg(data, height, width, self._decoding, out, seed)
        elif encoding == _RAW:
            pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            out[:] = fit_image(pixels, self._decoding, seed)
        else:
            out[:] = fit_image(images.decode(data), self._decoding, seed)


class BatchBuffers:
    """Batch buffers that are used again once nobody refers to them.

    A fresh 15 MB array for each batch costs a page fault per 4 kB; memory that was touched
    before costs none. NumPy lets every view refer to the array that owns the memory, and
    TensorFlow holds on to the view for as long as a tensor shares it, so memory is free when
    only this list refers to its owner.
    """

    _FREE = 3  # references to a free owner: the list, the local name, getrefcount's argument

    def __init__(self):
        self._owners: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array with undefined contents, aligned for TensorFlow."""
        size = math.prod(shape)
        with self._lock:
            for number in range(len(self._owners)):
                owner = self._owners[number]
                if sys.getrefcount(owner) == self._FREE:
                    if owner.size >= size + _ALIGNMENT:  # larger: an epoch's last batch is smaller
                        return _aligned(owner, shape)
                    del self._owners[number]
                    break
            self._owners.append(np.empty(size + _ALIGNMENT, np.uint8))
            return _aligned(self._owners[-1], shape)


def _aligned(owner: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    skip = -owner.ctypes.data % _ALIGNMENT
    return owner[skip : skip + math.prod(shape)].reshape(shape)
