"""A tar file as a folder of images: nothing is unpacked. Compressed tar files go through a spool."""

from collections.abc import Callable, Iterator

from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import FolderEntry
from tfrecords_tools.images.image import MAX_FILE_BYTES
from tfrecords_tools.sources import tar_files
from tfrecords_tools.sources.container_files import ContainerFiles
from tfrecords_tools.sources.spool import Spool, Spooled

_MAX_TEXT_BYTES = 1 << 28  # of a CSV file in the archive, which is kept in memory until it is read


class TarArchive(Spooled):
    """A `Source`: the members of one tar file."""

    def __init__(self, url: str, spool_folder: str | None):
        self.root = url
        self._files = ContainerFiles([url])
        compressed = tar_files.is_compressed(self._files)
        self._spool = Spool(spool_folder, self._files.identity()) if compressed else None
        self._texts: dict[str, tuple[int, int]] = {}  # name -> size and place, of CSV files

    def exists(self) -> bool:
        return True  # or else the constructor fails

    def walk(self) -> Iterator[FolderEntry]:
        """All members. Raises DataError when the archive is damaged."""
        entries = self._spool.entries(self._spooled) if self._spool else self._listed()
        for entry in entries:
            if entry.key.endswith(b".csv") and not entry.problem:
                self._texts[entry.key.decode("utf-8", "surrogateescape")] = entry.size, entry.place
            yield entry

    def _listed(self) -> Iterator[FolderEntry]:
        return (member.entry for member in tar_files.members(self._files))

    def _spooled(self, keep: Callable[[bytes], int]) -> Iterator[FolderEntry]:
        for member in tar_files.members(self._files):
            readable = not member.entry.problem and member.entry.size <= MAX_FILE_BYTES
            yield member.entry._replace(place=keep(member.read()) if readable else 0)

    def read_image(self, key: bytes, size: int, place: int) -> bytes:
        return self._spool.read(size, place) if self._spool else self._files.read(place, size)

    def size(self, name: str) -> int | None:
        return self._texts[name][0] if name in self._texts else None

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        size, place = self._texts[name]
        if size > min(limit or _MAX_TEXT_BYTES, _MAX_TEXT_BYTES):
            raise DataError(f"{self.root}/{name}: {size:,} bytes, too many for a table of labels")
        return self.read_image(b"", size, place)
