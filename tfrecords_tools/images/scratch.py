"""Scratch memory for decoding, kept by each thread.

Paging in fresh memory for every image takes as long as half its decoding.
"""

import threading

import numpy as np

_thread = threading.local()


def scratch(size: int) -> np.ndarray:
    """uint8 [at least `size`] with undefined contents; the next call in this thread gives the same memory."""
    buffer = getattr(_thread, "buffer", None)
    if buffer is None or buffer.size < size:
        _thread.buffer = buffer = np.empty(size, np.uint8)
    return buffer
