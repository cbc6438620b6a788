"""A zip file as a folder of images: nothing is unpacked, and members are read by their place.

zipfile reads the directory at the archive's end once. Of each member there remain 22 bytes, so that a worker
reads one with two calls and without a directory of its own. What is read is bounded by the size that the
directory states, and checked by its CRC-32.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import DamagedMember, FolderEntry
from tfrecords_tools.sources import member_names
from tfrecords_tools.sources.container_files import ContainerFiles

_MEMBER = np.dtype([("offset", "<i8"), ("packed", "<i8"), ("crc", "<u4"), ("method", "<u2")])
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflate"}
_ENCRYPTED, _UTF_8 = 0x1, 0x800  # bits of a member's flags
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, lengths of the name and of the extra field


_DAMAGE = (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError, OSError)


class ZipArchive:
    """A `Source`: the members of one zip file."""

    def __init__(self, url: str):
        self.root = url
        self._file = ContainerFiles([url])
        self._members = np.empty(0, _MEMBER)
        self._texts: dict[str, tuple[int, int]] = {}  # name -> size and place, of CSV files

    def exists(self) -> bool:
        return True  # or else the constructor fails

    def walk(self) -> Iterator[FolderEntry]:
        """All members. Raises DataError when the archive is damaged."""
        try:
            with self._file.open(0) as file, zipfile.ZipFile(file) as archive:
                infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        except _DAMAGE as error:
            raise DataError(
                f"{self.root}: not a sound zip file ({error}); an interrupted download leaves such a file"
            ) from error
        self._members = np.zeros(len(infos), _MEMBER)
        for place, info in enumerate(infos):
            name, problem = _raw_name(info), _problem(info, self._file.sizes[0])
            entry = member_names.entry(name, 0 if problem else info.file_size, problem, place)
            if not problem:
                self._members[place] = info.header_offset, info.compress_size, info.CRC, info.compress_type
            if entry.key.endswith(b".csv") and not entry.problem:
                self._texts[entry.key.decode("utf-8", "surrogateescape")] = entry.size, place
            yield entry

    def read_image(self, key: bytes, size: int, place: int) -> bytes:
        data = self._unpacked(size, place)
        if len(data) != size or zlib.crc32(data) != self._members[place]["crc"]:
            raise DamagedMember("damaged zip file: the member's size or checksum does not match")
        return data

    def head(self, entry: FolderEntry, size: int) -> bytes:
        return self._unpacked(entry.size, entry.place, head=size)

    def _unpacked(self, size: int, place: int, *, head: int | None = None) -> bytes:
        """A member's bytes, no more than one over its size; with `head`, only so many."""
        member = self._members[place]
        start, packed = int(member["offset"]), int(member["packed"])
        header = self._file.read(start, _LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise DamagedMember("damaged zip file: no header where the directory says")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        if head is not None:
            packed = min(packed, head + 1_024)  # more than deflate's tables take
        data = self._file.read(start + _LOCAL_HEADER.size + name + extra, packed)
        if member["method"] != zipfile.ZIP_DEFLATED:
            return data[:head]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1 if head is None else head)
        except zlib.error as error:
            raise DamagedMember(f"damaged zip file: {error}") from error

    def size(self, name: str) -> int | None:
        return self._texts[name][0] if name in self._texts else None

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        size, place = self._texts[name]
        if limit is not None and size > limit:
            raise DataError(f"{self.root}/{name}: {size:,} bytes, more than the {limit:,} that are read")
        try:
            return self.read_image(b"", size, place)
        except DamagedMember as error:
            raise DataError(f"{self.root}/{name}: {error}") from error


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """A member's name as bytes; zipfile takes names without the UTF-8 flag for code page 437."""
    if info.create_system == 0:  # MS-DOS and Windows, whose tools may write backslashes
        return info.orig_filename.replace("\\", "/").encode("utf-8", "surrogateescape")
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF_8 else "cp437", "surrogateescape")


def _problem(info: zipfile.ZipInfo, archive_size: int) -> str:
    mode = info.external_attr >> 16
    if not 0 <= info.header_offset <= info.header_offset + info.compress_size <= archive_size:
        return "damaged zip file: the member lies outside of it"
    if info.compress_size > info.file_size + info.file_size // 8 + 4_096:  # more than deflate ever adds
        return "damaged zip file: the member's packed size is impossible"
    if info.file_size > 2_000 * (info.compress_size + 1):  # deflate packs to a 1,032nd at best
        return "damaged zip file: the member's size is impossible"
    if info.flag_bits & _ENCRYPTED:
        return "encrypted in the archive"
    if info.compress_type not in _METHODS:
        return f"packed by method {info.compress_type}; only {' and '.join(_METHODS.values())} are read"
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "a link or a device in the archive"
    return ""
