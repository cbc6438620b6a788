"""A cache of decoded pixels: record numbers -> uint8 rows, by one read each instead of a JPEG to decode.

    PATH/SPLIT-KEY.pixels   N rows of H*W*3 bytes, by record number; its space is taken at once
    PATH/SPLIT-KEY.rows     N bytes: 0 not there, 1 there, 2 does not decode; written after the row
    PATH/SPLIT-KEY.json     whose cache it is, the boot it was begun in, whether it is complete

KEY is a hash of the shards' own hashes and of the decoding, so another data set or size has another
cache. Processes of one machine fill and use the same files at once: a row is written before it is
said to be there, in memory that outlives a killed process. Only a machine that stops may keep the
one and lose the other; therefore an incomplete cache that was begun before the last boot is begun
anew, and a complete one is on disk (fsync) before it is called so.

Rows are read through a memory map, in which a copy costs a third less than by pread: here the file
is ours, its space is taken, and its length is looked at before every batch. What remains is somebody
who cuts it short within a batch.

In RAM it is plain memory of the process, in pages of 2 MB where the system has them: a row of 120 kB
would touch thirty small ones, each with a fault the first time and a table look-up every time.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import mmap
import os
import pathlib
import shutil
import threading
import weakref

import numpy as np
import simplejpeg

from deepduel.decoding import host_memory
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
from tfrecords_tools.errors import DataError, UsageError

_FORMAT = 2  # also of what `fitting` makes of an image
_ABSENT, _THERE, _BAD = 0, 1, 2
_RAM_SHARE = 0.9  # of the available memory that a cache may take at most
_OPEN: weakref.WeakKeyDictionary[Split, dict] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def check(text: str) -> None:
    """Raises UsageError when a cache's name is none of none, ram, decoded:PATH."""
    if text not in ("none", "ram") and not (text.startswith("decoded:") and text != "decoded:"):
        raise UsageError(f"cache must be none, ram or decoded:PATH, got {text!r}")


def open_cache(text: str, split: Split, decoding: DecodeOptions) -> "PixelCache | None":
    """The cache that `text` names; the same one for the same split as long as that is open.

    Raises:
      DataError: there is no room for it.
    """
    if text == "none":
        return None
    with _LOCK:
        known = _OPEN.setdefault(split, {})
        if (text, decoding) not in known:
            known[text, decoding] = PixelCache(text, split, decoding)
        return known[text, decoding]


class PixelCache:
    """Rows of decoded pixels by record number. Threads and processes may share it."""

    def __init__(self, text: str, split: Split, decoding: DecodeOptions):
        self._row_bytes = decoding.size[0] * decoding.size[1] * 3
        self._known = np.zeros(len(split), np.uint8)
        self._publishing = threading.Lock()
        self._complete = False
        self.bytes = self._row_bytes * len(split)
        if text == "ram":
            self.path = None
            memory = _memory(self.bytes)
        else:
            self._open_files(pathlib.Path(text.removeprefix("decoded:")), split, decoding)
            weakref.finalize(self, _close, self._pixels, self._rows)
            memory = mmap.mmap(self._pixels, 0, access=mmap.ACCESS_READ) if self.bytes else b""
        self._map = np.frombuffer(memory, np.uint8, self.bytes).reshape(len(split), *decoding.size, 3)

    def there(self, records: np.ndarray) -> np.ndarray:
        """Which records have their row here: bool [B]."""
        found = self._known[records] == _THERE
        if self.path and not found.all() and not self._complete:
            self._refresh()
            found = self._known[records] == _THERE
        return found

    def check(self) -> None:
        """Raises DataError when the file was cut short: before any `read` of a batch."""
        if self.path and os.fstat(self._pixels).st_size < self.bytes:
            raise DataError(f"{self.path}: was cut short while it was in use; remove it, it is built anew")

    def read(self, records: np.ndarray, out: np.ndarray) -> None:
        """Copies rows into contiguous uint8 [B, H, W, 3], without the interpreter's lock."""
        np.take(self._map, records, axis=0, out=out, mode="clip")  # "raise" would copy twice

    def write(self, record: int, pixels: np.ndarray | None) -> None:
        """Keeps one row; None for a record that does not decode."""
        state = _BAD if pixels is None else _THERE
        if self.path is None and pixels is not None:
            self._map[record] = pixels
        elif self.path:
            self._write_files(record, pixels, state)
        self._known[record] = state

    def _write_files(self, record: int, pixels: np.ndarray | None, state: int) -> None:
        if pixels is not None:
            written = os.pwritev(self._pixels, [pixels], record * self._row_bytes)
            if written != self._row_bytes:  # its space was taken at the start
                raise DataError(f"{self.path}: cannot be written to; look after the disk")
        os.pwrite(self._rows, bytes([state]), record)

    def settled(self) -> None:
        """After writes: makes a cache that has become complete last beyond the machine's next start."""
        if self.path and not self._complete and self._known.all():
            threading.Thread(target=self._publish, name="cache", daemon=True).start()

    def _refresh(self) -> None:
        states = np.frombuffer(os.pread(self._rows, len(self._known), 0), np.uint8)
        noted = np.flatnonzero(states)  # only these: another thread may have written more rows since
        self._known[noted] = states[noted]

    def _publish(self) -> None:
        with self._publishing:
            if self._complete:
                return
            os.fsync(self._pixels)
            os.fsync(self._rows)
            with _Locked(self.path):
                if _same_file(self._pixels, self.path):  # and not begun anew meanwhile
                    _write_about(self._about_path, self._about | {"complete": True})
            self._complete = True

    def _open_files(self, folder: pathlib.Path, split: Split, decoding: DecodeOptions) -> None:
        self._about = _about(split, decoding)
        name = f"{split.name}-{self._about['key'][:20]}"
        self.path = folder / f"{name}.pixels"
        self._about_path = folder / f"{name}.json"
        rows = folder / f"{name}.rows"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _Locked(self.path):
                if not self._usable(rows):
                    for path in (self._about_path, self.path, rows):
                        path.unlink(missing_ok=True)
                    _remove_stale(folder, self._about)
                    self._make(rows)
                self._pixels, self._rows = os.open(self.path, os.O_RDWR), os.open(rows, os.O_RDWR)
        except OSError as error:
            raise DataError(f"cache {folder}: {error.strerror}; give another --cache, or none") from error
        self._refresh()

    def _usable(self, rows: pathlib.Path) -> bool:
        try:
            about = json.loads(self._about_path.read_text("utf-8"))
            sizes = self.path.stat().st_size, rows.stat().st_size
        except (OSError, ValueError):
            return False
        self._complete = about.get("complete") is True
        same = all(about.get(name) == self._about[name] for name in ("format", "key"))
        lasting = self._complete or about.get("boot") == self._about["boot"]
        return same and lasting and sizes == (self.bytes, len(self._known))

    def _make(self, rows: pathlib.Path) -> None:
        self._complete = False
        free = shutil.disk_usage(self.path.parent).free
        if self.bytes > free:
            raise _no_room(f"cache {self.path.parent}", self.bytes, free, "free on the disk")
        for path, size in ((self.path, self.bytes), (rows, len(self._known))):
            with path.open("wb") as file:
                if size:
                    _take_space(file.fileno(), size, path)
        _write_about(self._about_path, self._about | {"complete": False})


def _memory(size: int) -> mmap.mmap | bytes:
    available = host_memory.available_bytes()
    if size > _RAM_SHARE * available:
        raise _no_room("cache ram", size, int(_RAM_SHARE * available), "of memory to be had")
    if not size:
        return b""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # Linux with huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _take_space(file: int, size: int, path: pathlib.Path) -> None:
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
        "give another --cache, or --cache=none"
    )


def _about(split: Split, decoding: DecodeOptions) -> dict:
    shards = [[shard.records, shard.sha256[""]] for shard in split.shards]
    options = dataclasses.asdict(decoding) | {"decoder": simplejpeg.__version__}
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
            other = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        alike = ("data_dir", "split", "options")
        if isinstance(other, dict) and all(other.get(name) == about[name] for name in alike):
            for suffix in (".json", ".pixels", ".rows", ".lock"):
                path.with_suffix(suffix).unlink(missing_ok=True)


def _write_about(path: pathlib.Path, about: dict) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    partial.replace(path)


def _same_file(file: int, path: pathlib.Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file), path.stat())


class _Locked:
    """Holds the lock of a cache's files; the system lets go of it when the process ends."""

    def __init__(self, path: pathlib.Path):
        self._path = path.with_suffix(".lock")

    def __enter__(self):
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exception):
        self._file.close()


def _close(*files: int) -> None:
    for file in files:
        os.close(file)
