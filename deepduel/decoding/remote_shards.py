"""Shards behind a URL, read by spans of bytes, with a local copy of the blocks that were needed.

A request to an object store takes tens of milliseconds, however few bytes it asks for. So blocks of 4 MB are
requested, many at a time, and kept in a local file: an epoch in random order makes one request per block and
not one per image, and the next epoch none. Workers decode straight from that file. Shards that do not fit
into the file are read by one request per image, many at a time.
"""

import concurrent.futures
import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

import google_crc32c
import numpy as np

from deepduel.decoding import remote_cache
from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import Shard

BLOCK = 4 << 20  # bytes; a store delivers them at about its full rate
REQUESTS = 32  # at a time
SLOW = 20.0  # seconds after which a request is made once more

_AHEAD = 8  # blocks that each read requests beyond its own
_ATTEMPTS = 4
_FIRST_PAUSE = 0.5  # seconds before a failed request is repeated; doubled each time
_PRESENT = 1 << 32  # in a block's entry, beside its CRC-32C


class RemoteShards:
    """The shards of one split in an object store. Several threads may read at once.

    Attributes:
      cache: what is kept, see `remote_cache`.
      kept: how many of the shards, from the first on, are kept in the local file.
      requests: number of requests that were answered so far.
    """

    def __init__(
        self, folder: Folder, shards: Sequence[Shard], cache: str = "none", *, block: int = BLOCK,
        slow: float = SLOW,
    ) -> None:  # fmt: skip
        """Opens the local file; reads nothing.

        Args:
          folder: the folder of shards.
          shards: of one split, in order.
          cache: what is kept, see `remote_cache`.
          block: bytes of a request for what is kept.
          slow: seconds after which a request is made once more.

        Raises:
          UsageError: `cache` is none of its values.
          DataError: the local file cannot be made.
        """
        self._folder, self._shards, self.cache = folder, list(shards), cache
        self._block, self._slow = block, slow
        sizes = np.array([shard.bytes for shard in self._shards], np.int64)
        self._firsts = np.cumsum(sizes) - sizes  # where each shard begins in the local file
        blocks = -(-sizes // block)
        self._first_blocks = np.cumsum(blocks) - blocks  # the number of each shard's first block
        self.requests = 0
        self._lock = threading.Lock()
        self._pending: dict[int, concurrent.futures.Future[None]] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(REQUESTS, "remote-shards")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._local = remote_cache.open_file(
            cache, f"{folder.root}:{[(s.file, s.bytes, s.sha256) for s in shards]}"
        )
        file, room = self._local.descriptor, self._local.room
        self._file = -1 if file is None else file
        if file is not None:
            weakref.finalize(self, os.close, file)
        self._full = False  # whether the disk has no room for further blocks
        self.kept = int(np.searchsorted(self._firsts + sizes, room, side="right"))
        self._blocks = int(blocks[: self.kept].sum())
        self._sums = remote_cache.open_sums(self._local.path, self._blocks)
        self._ready = np.zeros(self._blocks, bool)  # in the file, and found sound by this process
        self._next = 0  # all blocks before are requested or ready
        if file is not None and self.kept < len(self._shards):
            print(
                f"warning: {folder.root}: the shards of the split take {sizes.sum() / 1e9:.2f} GB, but "
                f"remote_cache={cache} has room for {room / 1e9:.2f} GB; each image of "
                f"{len(self._shards) - self.kept} of the {len(self._shards)} shards takes a request in every "
                "epoch; set remote_cache to FOLDER:SIZE with more room, or reader to sequential",
                file=sys.stderr,
            )

    def close(self) -> None:
        """Waits for the requests under way, and makes no further ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, shards: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> list[bytes]:
        """The bytes of spans.

        Args:
          shards: int [N], numbers of shards.
          starts, sizes: int [N], of the spans in their shards, in bytes.

        Returns:
          One value per span; shorter where the object ends.

        Raises:
          DataError: an object has vanished, or requests keep failing.
        """
        with self.placed(shards, starts, sizes) as (files, numbers, places):
            spans = zip(numbers.tolist(), places.tolist(), np.asarray(sizes).tolist(), strict=True)
            return [os.pread(files[number], size, place) for number, place, size in spans]

    @contextlib.contextmanager
    def placed(
        self, shards: np.ndarray, starts: np.ndarray, sizes: np.ndarray
    ) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """Makes spans local.

        Yields:
          Descriptors, and for each span the number of its descriptor and its place in that file, [N] each.
        """
        shards, starts, sizes = (np.asarray(column, np.int64) for column in (shards, starts, sizes))
        numbers, places = np.zeros(len(shards), np.int64), self._firsts[shards] + starts
        kept, others = np.flatnonzero(shards < self.kept), np.flatnonzero(shards >= self.kept)
        waiting = self._request_each(shards[others], starts[others], sizes[others])
        is_local = self._fetch(shards[kept], starts[kept], sizes[kept])
        missing = kept[~is_local]
        waiting += self._request_each(shards[missing], starts[missing], sizes[missing])
        with contextlib.ExitStack() as stack:
            files = [self._file]
            if waiting:
                encoded = [future.result() for future in waiting]
                files.append(stack.enter_context(_in_memory_file(encoded)))
                lengths = [len(part) for part in encoded]
                requested = np.concatenate([others, missing])
                numbers[requested], places[requested] = 1, np.cumsum(lengths) - lengths
            yield files, numbers, places

    def _request_each(
        self, shards: np.ndarray, starts: np.ndarray, sizes: np.ndarray
    ) -> list[concurrent.futures.Future[bytes]]:
        spans = zip(shards.tolist(), starts.tolist(), sizes.tolist(), strict=True)
        return [self._pool.submit(self._request, *span) for span in spans]

    def _fetch(self, shards: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Waits until the blocks of these spans are in the local file; requests some more.

        Returns:
          bool [N], False for spans that have no room there.
        """
        first = self._first_blocks[shards] + starts // self._block
        last = self._first_blocks[shards] + (starts + np.maximum(sizes, 1) - 1) // self._block
        ranges = [range(begin, end + 1) for begin, end in zip(first.tolist(), last.tolist(), strict=True)]
        needed = [block for block in sorted(set().union(*ranges)) if not self._ready[block]]
        if self._full:
            needed = [block for block in needed if self._sums[block]]
        requested_before = {block for block in needed if block in self._pending}
        futures = {block: self._start(block) for block in needed}
        self._request_ahead()
        for block, future in futures.items():
            try:
                self._wait(block, future)
            except DataError:  # whatever it was may have passed since an earlier read asked for the block
                if block not in requested_before:
                    raise
                self._wait(block, self._pool.submit(self._bring, block))
        if not self._full:
            return np.ones(len(ranges), bool)
        return np.array([self._ready[blocks.start : blocks.stop].all() for blocks in ranges], bool)

    def _request_ahead(self) -> None:
        ahead: list[int] = []
        with self._lock:  # of several threads each takes other blocks
            room = 0 if self._full else min(_AHEAD, REQUESTS - len(self._pending))
            while self._next < self._blocks and len(ahead) < room:
                if not self._ready[self._next]:
                    ahead.append(self._next)
                self._next += 1
        for block in ahead:
            self._start(block)

    def _start(self, block: int) -> "concurrent.futures.Future[None]":
        with self._lock:
            if block not in self._pending:
                self._pending[block] = self._pool.submit(self._bring, block)
            return self._pending[block]

    def _wait(self, block: int, future: "concurrent.futures.Future[None]") -> None:
        """Waits for a block; asks once more each time that the answer takes long."""
        attempts = {future}
        while True:
            done, _ = concurrent.futures.wait(attempts, self._slow, concurrent.futures.FIRST_COMPLETED)
            if done:
                break
            if len(attempts) < _ATTEMPTS:
                attempts.add(self._pool.submit(self._bring, block))
        done.pop().result()

    def _bring(self, block: int) -> None:
        try:
            self._copy(block)
        finally:
            with self._lock:
                self._pending.pop(block, None)

    def _copy(self, block: int) -> None:
        """Puts a block into the local file, unless it is there or has no room."""
        shard = int(np.searchsorted(self._first_blocks, block, side="right")) - 1
        start = (block - int(self._first_blocks[shard])) * self._block
        size = min(self._block, self._shards[shard].bytes - start)
        place = int(self._firsts[shard]) + start
        if self._sums[block]:
            data = os.pread(self._file, size, place)
            if len(data) == size and int(self._sums[block]) == _PRESENT + google_crc32c.value(data):
                self._ready[block] = True
                return
        data = self._request(shard, start, size)
        if len(data) < size:
            raise DataError(
                f"{self._url(shard)}: ends before byte {start + size:,}, so it was replaced since it was "
                "opened; start again, or convert again"
            )
        try:
            if not self._local.write(data, place):
                self._warn_that_it_is_full()
                return
        except OSError as error:
            raise DataError(
                f"the local copy of {self._url(shard)} cannot be written ({error.strerror}); "
                "set remote_cache to a FOLDER:SIZE with room, or to none"
            ) from error
        self._sums[block] = _PRESENT + google_crc32c.value(data)
        self._ready[block] = True

    def _warn_that_it_is_full(self) -> None:
        with self._lock:
            full_before, self._full = self._full, True
        if not full_before:
            print(
                f"warning: {self._folder.root}: the disk has no more room for the local copy of the shards "
                f"(remote_cache={self.cache}); each image that is not in it takes a request in every epoch; "
                "set remote_cache to FOLDER:SIZE with room, or reader to sequential",
                file=sys.stderr,
            )

    def _request(self, shard: int, start: int, size: int) -> bytes:
        """One span from the store; repeated when it fails."""
        pause = _FIRST_PAUSE
        for attempt in range(_ATTEMPTS):
            try:
                data = self._folder.read_span(self._shards[shard].file, start, size)
            except FileNotFoundError as error:
                raise DataError(
                    f"{self._url(shard)}: this object no longer exists; restore it, or convert again"
                ) from error
            except PermissionError as error:
                raise DataError(
                    f"{self._url(shard)}: may not be read ({error}); check the credentials"
                ) from error
            except DataError as error:
                if attempt == _ATTEMPTS - 1:
                    raise DataError(f"{self._url(shard)}, byte {start:,}: {error}") from error
                time.sleep(pause)
                pause *= 2
                continue
            with self._lock:
                self.requests += 1
            return data
        raise AssertionError("unreachable")

    def _url(self, shard: int) -> str:
        return f"{self._folder.root}/{self._shards[shard].file}"


@contextlib.contextmanager
def _in_memory_file(encoded: list[bytes]) -> Iterator[int]:
    """The descriptor of a file in memory that holds these bytes, one after the other."""
    file = os.memfd_create("deepduel-encoded", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.writelines(encoded)
        yield file
    finally:
        os.close(file)
