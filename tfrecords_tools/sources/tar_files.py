"""The members of tar files, one after another, by Python's tarfile.

A plain tar file is read by the place of each member. A compressed one (gzip, bzip2, xz, Zstandard) can only
be read from its start, so its members go to a `Spool` as they come by, and are read from there.
"""

import contextlib
import lzma
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Literal, NamedTuple, Self

from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import FolderEntry
from tfrecords_tools.images.image import MAX_FILE_BYTES
from tfrecords_tools.sources import member_names
from tfrecords_tools.sources.container_files import ContainerFiles

_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", _ZSTANDARD)
# TypeError, struct.error: what tarfile lets through of a gzip header that is cut off.
_DAMAGE = (
    tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, TypeError, struct.error,
)  # fmt: skip
_END_BYTES = 1 << 20  # more than the zeros at the end take


# Here because an argument of `fromtarfile` is called tarfile.
_HeaderError, _ReadError = tarfile.HeaderError, tarfile.ReadError
_EndError: type[tarfile.HeaderError] = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # not in the stubs


class _StrictTarInfo(tarfile.TarInfo):
    """Has a damaged header, or a missing end, be an error: tarfile takes both for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _HeaderError as error:
            if isinstance(error, _EndError):
                raise
            raise _ReadError(f"{error}, not the zeros that end an archive") from error


class TarMember(NamedTuple):
    """A file in a tar file.

    Attributes:
      entry: its key, size and problem; its place is where its bytes begin, see `ContainerFiles`, which is of
        no use in a compressed file.
      file: number of the tar file.
      read: gives its bytes, until the next member is asked for.
    """

    entry: FolderEntry
    file: int
    read: Callable[[], bytes]


def is_compressed(files: ContainerFiles) -> bool:
    """Whether one of the files is compressed. Raises DataError where the library to read it is missing."""
    compressed = False
    for number, name in enumerate(files.names):
        with files.open(number) as file:
            head = file.read(6)
            if head.startswith(_ZSTANDARD):
                _decompressed(file, name)
        compressed |= head.startswith(_COMPRESSED)
    return compressed


def _decompressed(file: IO[bytes], name: str) -> IO[bytes]:
    """The content of a file that Zstandard compressed, to be read in order."""
    try:
        import zstandard
    except ImportError:
        raise DataError(
            f"{name}: compressed by Zstandard; pip install 'deepduel[zstandard]' reads it, or decompress it "
            "with unzstd"
        ) from None
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)


def _damage() -> tuple[type[Exception], ...]:
    """What the libraries raise for a damaged file."""
    zstandard = sys.modules.get("zstandard")
    return _DAMAGE if zstandard is None else (*_DAMAGE, zstandard.ZstdError)


def members(files: ContainerFiles) -> Iterator[TarMember]:
    """All members of all files but directories. Raises DataError when a file is damaged."""
    for number in range(len(files.names)):
        yield from members_of(files, number)


def members_of(files: ContainerFiles, number: int) -> Iterator[TarMember]:
    """All members of one file but directories. Raises DataError when it is damaged."""
    count = 0
    archive = _members(files, number)
    while True:
        try:
            member = next(archive, None)
        except _damage() as error:
            raise _damaged(files.names[number], f"after {count:,} members", error) from error
        if member is None:
            return
        yield member
        count += 1


def _members(files: ContainerFiles, number: int) -> Iterator[TarMember]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(files.open(number))
        head = file.read(6)
        compressed = head.startswith(_COMPRESSED)
        file.seek(0)
        mode: Literal["r|", "r|*", "r:"] = "r|*" if compressed else "r:"
        if head.startswith(_ZSTANDARD):
            file, mode = _decompressed(file, files.names[number]), "r|"
        archive = stack.enter_context(tarfile.open(fileobj=file, mode=mode, tarinfo=_StrictTarInfo))
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them
            if info.isdir():
                continue
            problem = "" if info.isreg() and not info.issparse() else "a link or a device in the archive"
            end = info.offset_data + info.size
            if not 0 <= info.size < 1 << 62 or (not compressed and end > files.sizes[number]):
                raise tarfile.ReadError("unexpected end of data")
            place = files.starts[number] + info.offset_data
            entry = member_names.entry(
                info.name.encode("utf-8", "surrogateescape"), info.size, problem, place
            )
            yield TarMember(entry, number, _reader(archive, info, files.names[number]))
        if not compressed and any(files.read(files.starts[number] + archive.offset, _END_BYTES)):
            raise tarfile.ReadError(
                "something follows the zeros that end an archive, perhaps another archive"
            )


def _reader(archive: tarfile.TarFile, info: tarfile.TarInfo, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            file = archive.extractfile(info) if info.size <= MAX_FILE_BYTES else None
            data = file.read() if file else b""
        except _damage() as error:
            raise _damaged(name, f"in {info.name}", error) from error
        if len(data) != info.size:
            raise _damaged(name, f"in {info.name}", "unexpected end of data")
        return data

    return read


def _damaged(name: str, where: str, error: object) -> DataError:
    return DataError(
        f"{name}: damaged {where} ({error}); an interrupted download leaves such a file; fetch it again"
    )
