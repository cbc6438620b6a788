"""Asks the system for encoded images before they are read, so that random reads do not wait for a cold disk.

A disk answers a random read of 10 kB in the time in which it sends hundreds of kB from start to end; one
behind a network is worse. So where memory has room for all shards, they are asked for from start to end,
once; where it has not, each batch's images are asked for together, and the disk has them all to do at
once. What is in memory already costs next to nothing.
"""

import os
import threading

import numpy as np

from deepduel.decoding import host_memory
from deepduel.decoding.split import Split

_SHARE = 0.5  # of the memory to be had that the shards may fill


class ReadAhead:
    """Of one split. Callable with the record numbers of each batch, int64 [B], before they are read."""

    def __init__(self, split: Split):
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
            if self._split.local and hasattr(os, "posix_fadvise"):
                stored = sum(shard.bytes for shard in self._split.shards)
                self._each_batch = stored > _SHARE * host_memory.available_bytes()
                if not self._each_batch:
                    threading.Thread(target=self._split.will_read_all, name="read-ahead", daemon=True).start()
            self._begun = True
