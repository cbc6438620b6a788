"""Memory for batches, reused once nothing refers to it any more.

A fresh 15 MB array for each batch would cost a page fault per 4 kB; memory that was touched before
costs none. Shared buffers are files in memory (memfd, Linux), one each: a process that receives the
descriptor can write to them too. Private buffers lie in huge pages where the system has them.
"""

import contextlib
import itertools
import math
import mmap
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_numbers = itertools.count()


class Buffer(NamedTuple):
    """Memory handed out for one batch.

    Attributes:
      pixels: uint8 of the requested shape, with undefined contents. It starts on a page, so TensorFlow
        uses it without a copy.
      file: descriptor of the shared memory, valid while `pixels` is referred to; -1 for private memory.
      number: identifies the memory among all buffers of this process.
      size: of the memory, in bytes.
    """

    pixels: np.ndarray
    file: int
    number: int
    size: int


class _Memory(NamedTuple):
    owner: np.ndarray
    file: int
    number: int

    def buffer(self, shape: tuple[int, ...]) -> Buffer:
        pixels = self.owner[: math.prod(shape)].reshape(shape)
        return Buffer(pixels, self.file, self.number, self.owner.size)


def _references(memories: Sequence[_Memory], index: int) -> int:
    """References to the owner of `memories[index]`, those of the list and of this call included.

    How many these are depends on the interpreter (CPython 3.14 counts fewer for a call's argument), so
    `free_references` measures them through this same function.
    """
    return sys.getrefcount(memories[index].owner)


def free_references(references: Callable[[Sequence[_Memory], int], int] = _references) -> int | None:
    """What `references` gives for memory that only a list of memories refers to.

    Returns:
      The count; None if it can't be relied on, because a view of the memory doesn't raise it by one or the
      count doesn't come back when the view goes.
    """
    memories = [_Memory(np.frombuffer(bytearray(64), np.uint8), -1, -1)]
    free = references(memories, 0)
    for _ in range(64):  # more than the calls after which CPython specialises a function's bytecode
        view = memories[0].buffer((2, 8)).pixels
        with_view = references(memories, 0)
        del view
        if with_view != free + 1 or references(memories, 0) != free:
            return None
    return free


_FREE = free_references()


class BatchBuffers:
    """Batch buffers that are reused once nothing refers to them any more.

    NumPy lets every view refer to the array that owns the memory, and TensorFlow keeps the view for as
    long as a tensor shares it, so memory is free when only the list in here refers to its owner. Where
    the interpreter doesn't count references that way, every batch gets fresh memory, with one warning.

    Several threads may call `take` at once.
    """

    def __init__(self, *, shared: bool = False, free: int | None = _FREE):
        """Makes no buffer yet.

        Args:
          shared: whether other processes may map the memory (see `Buffer.file`).
          free: the number of references to free memory; None for fresh memory every time.
        """
        self._allocate = _shared if shared else _private
        self._free = free
        self._memories: list[_Memory] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        if free is None:
            _warn_once()

    def take(self, shape: tuple[int, ...]) -> Buffer:
        """Memory for uint8 pixels of this shape, which nothing else uses."""
        size = math.prod(shape)
        with self._lock:
            if self._process != os.getpid():  # after a fork the parent still writes to this memory
                self._memories, self._process = [], os.getpid()
            for index in range(len(self._memories)):
                if _references(self._memories, index) == self._free:
                    if self._memories[index].owner.size >= size:  # larger: an epoch's last batch is smaller
                        return self._memories[index].buffer(shape)
                    del self._memories[index]
                    break
            memory = self._allocate(-(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE)
            if self._free is not None:
                self._memories.append(memory)
            return memory.buffer(shape)

    def clear(self) -> None:
        """Releases all memory; what is still in use is released as soon as it no longer is."""
        with self._lock:
            self._memories = []


_warned = threading.Event()


def _warn_once() -> None:
    if _warned.is_set():
        return
    _warned.set()
    warnings.warn(
        f"Python {sys.version.split()[0]} doesn't count references to arrays as CPython 3.11 to 3.13 do, so "
        "memory is allocated anew for every batch, which is slower",
        RuntimeWarning,
        stacklevel=3,
    )


def _private(size: int) -> _Memory:
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return _Memory(np.frombuffer(memory, np.uint8), -1, next(_numbers))


def _shared(size: int) -> _Memory:
    file = os.memfd_create("deepduel-batch", os.MFD_CLOEXEC)
    os.ftruncate(file, size)
    owner = np.frombuffer(mmap.mmap(file, size), np.uint8)
    weakref.finalize(owner, _close, file, os.getpid()).atexit = False
    return _Memory(owner, file, next(_numbers))


def _close(file: int, process: int) -> None:
    if process == os.getpid():  # in a fork, the parent still uses the memory
        os.ftruncate(file, 0)  # releases it even where other processes keep it mapped
    os.close(file)
