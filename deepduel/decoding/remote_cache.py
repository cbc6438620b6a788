"""Where the local copy of shards in an object store lies.

auto              a temporary file of at most half the free space of the temporary folder
FOLDER[:SIZE]     a file that later runs and other processes use too, such as /scratch/blocks:200GB
ram[:SIZE]        memory, by default at most half of what is available
none              nothing is kept: one request per image
"""

import dataclasses
import errno
import hashlib
import mmap
import os
import pathlib
import re
import shutil
import tempfile

import numpy as np

from deepduel.decoding import host_memory
from tfrecords_tools.errors import DataError, UsageError

_SHARE = 0.5  # of the free space or memory that is used unless a size is given
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SPEC = re.compile(r"(?P<place>.+?)(:(?P<number>\d+(\.\d+)?)(?P<unit>[KMGT]?B?))?", re.IGNORECASE)


def parse(spec: str) -> tuple[str, int | None]:
    """(place, size in bytes or None) of auto, none, ram[:SIZE] or FOLDER[:SIZE].

    Raises:
      UsageError: the size is not one.

    Examples:
      >>> parse("/scratch/blocks:1.5GB")
      ('/scratch/blocks', 1500000000)
    """
    match = _SPEC.fullmatch(spec)
    place, number, unit = match.group("place", "number", "unit") if match else ("", None, None)
    kind = place.partition(":")[0]
    if not place or (kind in ("auto", "none") and spec != kind) or (kind == "ram" and place != kind):
        raise UsageError(f"remote_cache must be auto, none, ram[:SIZE] or FOLDER[:SIZE], got {spec!r}")
    factor = _SIZES[(unit or "").upper().removesuffix("B")]
    return place, round(float(number) * factor) if number else None


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A file of blocks.

    Attributes:
      descriptor: None where nothing is kept.
      room: bytes it may take.
      path: where it stays for later runs; None where it goes with the process.
      reserve: bytes of its disk that it leaves free, however many processes have such a file there.
    """

    descriptor: int | None
    room: int
    path: pathlib.Path | None = None
    reserve: int = 0

    def write(self, data: bytes, place: int) -> bool:
        """Writes bytes from `place` on; False where there is no room for them on the disk.

        Raises:
          OSError: they cannot be written for another reason.
        """
        assert self.descriptor is not None
        if self.reserve:
            disk = os.fstatvfs(self.descriptor)
            if disk.f_bavail * disk.f_frsize < self.reserve + len(data):
                return False
        rest = memoryview(data)
        try:
            while rest:  # a disk that is about to be full takes a part
                written = os.pwrite(self.descriptor, rest, place)
                rest, place = rest[written:], place + written
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return False
        return True


def open_file(cache: str, identity: str) -> LocalFile:
    """The local file of a cache, as in the module.

    Raises:
      UsageError: `cache` is none of its values.
      DataError: the file cannot be made.
    """
    place, size = parse(cache)
    if place == "none":
        return LocalFile(None, 0)
    if place == "ram":
        available = int(host_memory.available_bytes() * _SHARE)
        return LocalFile(os.memfd_create("deepduel-blocks", os.MFD_CLOEXEC), size or available)
    folder = pathlib.Path(tempfile.gettempdir() if place == "auto" else place).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if place == "auto":
            file, name = tempfile.mkstemp(prefix="deepduel-blocks-", dir=folder)
            os.unlink(name)  # noqa: PTH108, it goes with the process, however that ends
            return LocalFile(file, int(free * _SHARE), reserve=int(free * _SHARE))
        path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.blocks"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DataError(f"remote_cache={cache}: cannot be written ({error.strerror})") from error
    room = os.fstat(file).st_blocks * 512 + free
    return LocalFile(file, min(size or room, room), path)


def open_sums(path: pathlib.Path | None, blocks: int) -> np.ndarray:
    """uint64 [blocks], one entry per block, 0 at first; in a file where the blocks are kept.

    Raises:
      DataError: the file cannot be made.
    """
    if path is None or not blocks:
        return np.zeros(blocks, np.uint64)
    path = path.with_suffix(".sums")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # On a full disk, writing to a part of the mapped file that has no room yet would end the process.
            os.posix_fallocate(file, 0, blocks * 8)
            return np.frombuffer(mmap.mmap(file, blocks * 8), np.uint64)
        finally:
            os.close(file)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); set remote_cache to a FOLDER:SIZE with room, "
            "or to none"
        ) from error
