"""Asks the system for encoded images before they are read, so that random reads do not wait for a cold disk.

In the time of one random read of 10 kB a disk delivers hundreds of kB sequentially; network storage is
worse. So where memory has room for all shards, they are read ahead once, from start to end; otherwise each
batch's images are requested together, so that the disk works on all of them at once. Requests for data that
is already in memory cost next to nothing.
"""

import os
import threading

import numpy as np

from deepduel.decoding import host_memory
from deepduel.decoding.split import Split

_SHARE = 0.5  # of the available memory that the shards may fill


class ReadAhead:
    """Reads one split ahead. Callable with the records int64 [B] of each batch, before they are read."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._lock = threading.Lock()
        self._begun = False
        self._each_batch = False

    def __call__(self, records: np.ndarray) -> None:
        if not self._begun:
            self._begin()
        if self._each_batch:
            self._split.will_read(records)

    def _begin(self) -> None:
        with self._lock:
            if self._begun:
                return
            if self._split.remote is None and hasattr(os, "posix_fadvise"):
                stored = sum(shard.bytes for shard in self._split.shards)
                self._each_batch = stored > _SHARE * host_memory.available_bytes()
                if not self._each_batch:
                    threading.Thread(target=self._split.will_read_all, name="read-ahead", daemon=True).start()
            self._begun = True
