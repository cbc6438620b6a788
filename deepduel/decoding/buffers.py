"""Memory of batches, used again once nobody refers to it.

A fresh 15 MB array for each batch would cost a page fault per 4 kB; memory that was touched before
costs none. Shared buffers are files in memory (memfd, Linux), one each: sending the descriptor to another
process lets that write to them too. Private ones lie in huge pages where the system has them.
"""

import contextlib
import itertools
import math
import mmap
import os
import sys
import threading
import weakref
from typing import NamedTuple

import numpy as np

_numbers = itertools.count()


class Buffer(NamedTuple):
    """Memory as it is handed out.

    Attributes:
      pixels: uint8 of the shape that was asked for, with undefined contents; it starts on a page, so
        TensorFlow takes it without a copy.
      file, number, size: descriptor of shared memory, valid while `pixels` is referred to (-1: private); what
        no other buffer of this process is called; bytes.
    """

    pixels: np.ndarray
    file: int
    number: int
    size: int


class _Memory(NamedTuple):
    owner: np.ndarray
    file: int
    number: int


class BatchBuffers:
    """Batch buffers that are used again once nobody refers to them.

    NumPy lets every view refer to the array that owns the memory, and TensorFlow holds on to the view
    for as long as a tensor shares it, so memory is free when only this list refers to its owner.
    """

    _FREE = 3  # references to a free owner: its tuple, the local name, getrefcount's argument

    def __init__(self, *, shared: bool = False):
        self._allocate = _shared if shared else _private
        self._memories: list[_Memory] = []
        self._lock = threading.Lock()
        self._process = os.getpid()

    def take(self, shape: tuple[int, ...]) -> Buffer:
        size = math.prod(shape)
        with self._lock:
            if self._process != os.getpid():  # a fork: its parent writes to this memory
                self._memories, self._process = [], os.getpid()
            for place in range(len(self._memories)):
                owner, file, number = self._memories[place]
                if sys.getrefcount(owner) == self._FREE:
                    if owner.size >= size:  # larger: an epoch's last batch is smaller
                        return Buffer(owner[:size].reshape(shape), file, number, owner.size)
                    del self._memories[place], owner
                    break
            owner, file, number = self._allocate(-(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._memories.append(_Memory(owner, file, number))
            return Buffer(owner[:size].reshape(shape), file, number, owner.size)

    def clear(self) -> None:
        """Gives all memory back, what is still referred to as soon as it no longer is."""
        with self._lock:
            self._memories = []


def _private(size: int) -> _Memory:
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return _Memory(np.frombuffer(memory, np.uint8), -1, next(_numbers))


def _shared(size: int) -> _Memory:
    file = os.memfd_create("deepduel-batch", os.MFD_CLOEXEC)
    os.ftruncate(file, size)
    owner = np.frombuffer(mmap.mmap(file, size), np.uint8)
    weakref.finalize(owner, _free, file, os.getpid()).atexit = False
    return _Memory(owner, file, next(_numbers))


def _free(file: int, process: int) -> None:
    if process == os.getpid():  # and not in a fork, whose parent still uses it
        os.ftruncate(file, 0)  # gives it back even where other processes keep it mapped
    os.close(file)
