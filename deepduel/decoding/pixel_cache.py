"""A cache of decoded pixels: record numbers -> uint8 rows, by one read each instead of a JPEG to decode.

    PATH/SPLIT-KEY.pixels   N rows of H*W*3 bytes, by record number; its space is allocated at once
    PATH/SPLIT-KEY.rows     N bytes: 0 absent, 1 present, 2 does not decode; written after the row
    PATH/SPLIT-KEY.json     its data and options, the boot it was begun in, whether it is complete
    PATH/SPLIT-KEY.lock     held while the files are created or declared complete

KEY is a hash of the shards' own hashes and of the decoding options, so another data set or size has another
cache. Processes of one machine fill and use the same files at once: a row is written before it is
marked as present, in memory that outlives a killed process. Only a machine that stops may keep the
mark and lose the row; therefore an incomplete cache that was begun before the last boot is begun
anew, and a complete one is on disk (fsync) before it is marked as complete.

Rows are read through a memory map, in which a copy costs a third less than by pread: the file belongs to
this module, its space is allocated, and its length is checked before every batch. What remains is a
process that truncates it within a batch.

In RAM it is plain memory of the process, in pages of 2 MB where the system has them: a row of 120 kB
would touch thirty small ones, each with a fault the first time and a table look-up every time.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import mmap
import os
import pathlib
import shutil
import threading
import weakref
from typing import Any

import filelock
import numpy as np

from deepduel.decoding import host_memory
from deepduel.decoding.image import DecodeOptions, libraries
from deepduel.decoding.split import Split
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import documents

_FORMAT = 2  # of the files, and of the pixels that `image` makes
_ABSENT, _PRESENT, _BAD = 0, 1, 2
_RAM_SHARE = 0.9  # of the available memory that a cache may take at most
_Caches = dict[tuple[str, DecodeOptions], "PixelCache"]
_OPEN: weakref.WeakKeyDictionary[Split, _Caches] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def check(text: str) -> None:
    """Raises UsageError when a cache's name is none of none, ram, decoded:PATH."""
    if text not in ("none", "ram") and not (text.startswith("decoded:") and text != "decoded:"):
        raise UsageError(f"cache must be none, ram or decoded:PATH, got {text!r}")


def open_cache(text: str, split: Split, options: DecodeOptions) -> "PixelCache | None":
    """The cache that `text` names; the same one for the same split as long as that is open.

    Raises:
      DataError: there is no room for it.
    """
    if text == "none":
        return None
    with _LOCK:
        caches = _OPEN.setdefault(split, {})
        if (text, options) not in caches:
            if text == "ram":
                caches[text, options] = RamCache(split, options)
            else:
                caches[text, options] = FileCache(text.removeprefix("decoded:"), split, options)
        return caches[text, options]


class PixelCache:
    """Rows of decoded pixels by record number. Threads may share it."""

    def __init__(self, rows: np.ndarray) -> None:
        """Makes an empty cache whose rows are read from uint8 [N, H, W, 3]."""
        self._rows = rows
        self._states = np.zeros(len(rows), np.uint8)

    def has(self, records: np.ndarray) -> np.ndarray:
        """Which records have their row in the cache: bool [B]."""
        return self._states[records] == _PRESENT

    def check(self) -> None:
        """Raises DataError when rows can no longer be read; to be called before the reads of a batch."""

    def read(self, records: np.ndarray, out: np.ndarray) -> None:
        """Copies rows into contiguous uint8 [B, H, W, 3], without the interpreter's lock."""
        np.take(self._rows, records, axis=0, out=out, mode="clip")  # "raise" would copy twice

    def write(self, record: int, pixels: np.ndarray | None) -> None:
        """Stores one row; None for a record that does not decode."""
        raise NotImplementedError

    def finish_if_complete(self) -> None:
        """To be called after writes: a cache that has become complete survives a crash of the machine."""


class RamCache(PixelCache):
    """A cache in this process's memory."""

    def __init__(self, split: Split, options: DecodeOptions) -> None:
        shape = len(split), *options.size, 3
        size = int(np.prod(shape, dtype=np.int64))
        super().__init__(np.frombuffer(_memory(size), np.uint8, size).reshape(shape))

    def write(self, record: int, pixels: np.ndarray | None) -> None:
        if pixels is not None:
            self._rows[record] = pixels
        self._states[record] = _BAD if pixels is None else _PRESENT


class FileCache(PixelCache):
    """A cache in files, which processes of one machine share."""

    def __init__(self, folder: str | os.PathLike, split: Split, options: DecodeOptions) -> None:
        """Opens the cache, or creates it. Raises DataError where that fails, or the disk has no room."""
        self._shape = len(split), *options.size, 3
        self._bytes = int(np.prod(self._shape, dtype=np.int64))
        self._publishing = threading.Lock()
        self._complete = False
        self._about = _about(split, options)
        stem = pathlib.Path(folder, f"{split.name}-{self._about['key'][:20]}.pixels")
        self._path, self._states_path = stem, stem.with_suffix(".rows")
        self._about_path, self._lock_path = stem.with_suffix(".json"), stem.with_suffix(".lock")
        try:
            self._open()
        except OSError as error:
            raise DataError(
                f"cache {folder}: {error.strerror or error}; use another cache, or none"
            ) from error
        weakref.finalize(self, _close, self._file, self._states_file)
        memory = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) if self._bytes else b""
        super().__init__(np.frombuffer(memory, np.uint8, self._bytes).reshape(self._shape))
        self._refresh()

    def has(self, records: np.ndarray) -> np.ndarray:
        present = super().has(records)
        if not present.all() and not self._complete:
            self._refresh()
            present = super().has(records)
        return present

    def check(self) -> None:
        if os.fstat(self._file).st_size < self._bytes:
            raise DataError(
                f"{self._path}: was truncated while it was in use; remove it, and it is built anew"
            )

    def write(self, record: int, pixels: np.ndarray | None) -> None:
        state = _BAD if pixels is None else _PRESENT
        if pixels is not None:
            written = os.pwritev(self._file, [pixels.data], record * pixels.size)
            if written != pixels.size:  # its space was allocated at the start
                raise DataError(f"{self._path}: cannot be written to; check the disk")
        os.pwrite(self._states_file, bytes([state]), record)
        self._states[record] = state

    def finish_if_complete(self) -> None:
        if not self._complete and self._states.all():
            threading.Thread(target=self._publish, name="cache", daemon=True).start()

    def _refresh(self) -> None:
        """Takes over what other processes have written."""
        states = np.frombuffer(os.pread(self._states_file, self._shape[0], 0), np.uint8)
        written = np.flatnonzero(states)  # only these: another thread may have written more rows since
        self._states[written] = states[written]

    def _publish(self) -> None:
        with self._publishing:
            if self._complete:
                return
            os.fsync(self._file)
            os.fsync(self._states_file)
            with filelock.FileLock(self._lock_path, fallback_to_soft=False):
                if _same_file(self._file, self._path):  # and not begun anew meanwhile
                    _write_about(self._about_path, self._about | {"complete": True})
            self._complete = True

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(
            self._lock_path, fallback_to_soft=False
        ):  # the system releases it when the process ends
            if not self._usable():
                for path in (self._about_path, self._path, self._states_path):
                    path.unlink(missing_ok=True)
                _remove_stale(self._path.parent, self._about)
                self._create()
            self._file, self._states_file = (
                os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in (self._path, self._states_path)
            )

    def _usable(self) -> bool:
        try:
            about = documents.read_file(self._about_path, dict[str, Any])
            sizes = self._path.stat().st_size, self._states_path.stat().st_size
        except (OSError, ValueError):
            return False
        self._complete = about.get("complete") is True
        same = all(about.get(name) == self._about[name] for name in ("format", "key"))
        lasting = self._complete or about.get("boot") == self._about["boot"]
        return same and lasting and sizes == (self._bytes, self._shape[0])

    def _create(self) -> None:
        self._complete = False
        free = shutil.disk_usage(self._path.parent).free
        if self._bytes > free:
            raise _no_room(f"cache {self._path.parent}", self._bytes, free, "free on the disk")
        for path, size in ((self._path, self._bytes), (self._states_path, self._shape[0])):
            with path.open("wb") as file:
                if size:
                    _allocate(file.fileno(), size, path)
        _write_about(self._about_path, self._about | {"complete": False})


def _memory(size: int) -> mmap.mmap | bytes:
    available = host_memory.available_bytes()
    if size > _RAM_SHARE * available:
        raise _no_room("cache ram", size, int(_RAM_SHARE * available), "of memory available")
    if not size:
        return b""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # Linux with huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _allocate(file: int, size: int, path: pathlib.Path) -> None:
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise _no_room(f"cache {path.parent}", size, shutil.disk_usage(path.parent).free, "free") from error


def _no_room(what: str, size: int, room: int, where: str) -> DataError:
    return DataError(
        f"{what}: the decoded images take {size / 1e9:.1f} GB, but there are {room / 1e9:.1f} GB {where}; "
        "use another cache, or none"
    )


def _about(split: Split, decoding: DecodeOptions) -> dict:
    shards = [[shard.records, shard.sha256[""]] for shard in split.shards]
    options = dataclasses.asdict(decoding) | libraries()
    digest = hashlib.sha256(json.dumps([_FORMAT, shards, options]).encode()).hexdigest()
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return {
        "format": _FORMAT,
        "key": digest,
        "data_dir": str(split.data_dir.resolve()),
        "split": split.name,
        "options": json.loads(json.dumps(options)),
        "boot": boot.read_text().strip() if boot.exists() else "",
    }


def _remove_stale(folder: pathlib.Path, about: dict) -> None:
    """Removes caches of the same split and options whose data have changed since."""
    for path in folder.glob("*.json"):
        try:
            other = documents.read_file(path, dict[str, Any])
        except (OSError, ValueError):
            continue
        alike = ("data_dir", "split", "options")
        if all(other.get(name) == about[name] for name in alike):
            for suffix in (".json", ".pixels", ".rows", ".lock"):
                path.with_suffix(suffix).unlink(missing_ok=True)


def _write_about(path: pathlib.Path, about: dict) -> None:
    with published(path) as file:
        file.write(json.dumps(about, indent=1) + "\n")


def _same_file(file: int, path: pathlib.Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file), path.stat())


def _close(*files: int) -> None:
    for file in files:
        os.close(file)
