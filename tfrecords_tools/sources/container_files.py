"""The files of a source, such as the tar files of a WebDataset, addressed by one running number.

Byte `offset` of file `number` has the place `starts[number] + offset`, as if the files were one. Files lie on
this machine or behind a URL (s3://, gs://, …), which fsspec opens.
"""

import bisect
import glob
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import IO

from tfrecords_tools import regular_files
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import storage

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


class ContainerFiles:
    """Some files that must not change between the listing of their images and the reading.

    Attributes:
      names: paths or URLs, sorted.
      sizes: in bytes, by file.
      starts: the place of the first byte, by file.
    """

    def __init__(self, names: Sequence[str]):
        """Raises DataError when one does not exist."""
        self.names = tuple(name if storage.is_remote(name) else os.path.abspath(name) for name in names)  # noqa: PTH100, see below
        self._stamps = tuple(map(_stamp, self.names))
        self.sizes = tuple(size for size, _ in self._stamps)
        self.starts = tuple(itertools.accumulate(self.sizes, initial=0))[:-1]

    def identity(self) -> list[list]:
        """Name, size and time of the last change of each file."""
        return [[name, *stamp] for name, stamp in zip(self.names, self._stamps, strict=True)]

    def open(self, number: int) -> IO[bytes]:
        """A file, seekable, from its start. Raises DataError when it changed."""
        name = self.names[number]
        self._require_unchanged(number)
        if not storage.is_remote(name):
            return os.fdopen(regular_files.open_descriptor(name), "rb")
        import fsspec

        try:
            return fsspec.open(name, "rb").open()
        except Exception as error:  # each driver has exceptions of its own
            raise DataError(f"{name}: {' '.join(str(error).split())}") from error

    def read(self, place: int, size: int) -> bytes:
        """The bytes at a place; fewer where the file ends. Raises DataError when the file changed."""
        number = bisect.bisect_right(self.starts, place) - 1
        self._require_unchanged(number)
        folder, _, name = self.names[number].rpartition("/")
        return storage.open_folder(folder or "/").read_span(name, place - self.starts[number], size)

    def _require_unchanged(self, number: int) -> None:
        name = self.names[number]
        if not storage.is_remote(name) and _stamp(name) != self._stamps[number]:
            raise DataError(
                f"{name}: changed since its images were listed; run the command again when it is complete"
            )


def _stamp(name: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds (0 behind a URL)."""
    if storage.is_remote(name):
        folder, _, base = name.rpartition("/")
        size = storage.open_folder(folder).size(base)
        if size is None:
            raise DataError(f"{name}: there is no such file")
        return size, 0
    try:
        status = os.stat(name)  # noqa: PTH116, called once per image
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def expand(pattern: str, ending: str) -> list[str]:
    """The files that a path, a URL or a pattern names, sorted; of a folder, those below it.

    Args:
      pattern: such as "data/*.tar", "s3://bucket/train-{000..146}.tar" or a folder.
      ending: of the files that are taken from a folder, such as ".tar".

    Raises:
      DataError: there is none, or a file of a range is missing.
    """
    names = [name for part in _ranges(pattern) for name in _expand_one(part, ending)]
    return sorted(set(names))


def _ranges(pattern: str) -> Iterator[str]:
    """A pattern with ranges, as WebDataset writes them, as patterns without: `{08..10}` is 08, 09, 10."""
    matched = _RANGE.search(pattern)
    if matched is None:
        yield pattern
        return
    first, last = matched.groups()
    for number in range(int(first), int(last) + 1):
        yield from _ranges(f"{pattern[: matched.start()]}{number:0{len(first)}d}{pattern[matched.end() :]}")


def _expand_one(pattern: str, ending: str) -> list[str]:
    if storage.is_remote(pattern):
        names = _expand_remote(pattern, ending)
    elif os.path.isdir(pattern):  # noqa: PTH112, a Path of "" is the current directory
        names = [str(path) for path in pathlib.Path(pattern).rglob(f"*{ending}") if path.is_file()]
    else:
        absolute = os.path.abspath(pattern)  # noqa: PTH100, resolve() would follow links
        names = glob.glob(absolute, recursive=True) or [absolute] * pathlib.Path(absolute).is_file()  # noqa: PTH207, absolute patterns
    if not names:
        raise DataError(
            f"{pattern}: no such {ending} file; name a file, a folder, or a pattern in quotes, such as "
            f"'data/train-*{ending}'"
        )
    return names


def _expand_remote(pattern: str, ending: str) -> list[str]:
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(pattern)
        names = files.glob(path) if glob.has_magic(path) else [path]
        if len(names) == 1 and files.isdir(names[0]):
            names = [name for name in files.find(names[0]) if name.endswith(ending)]
        return [str(files.unstrip_protocol(name)) for name in names]
    except ImportError as error:
        raise DataError(f"{pattern}: {error}; pip install the driver, or 'deepduel[remote]'") from error
    except Exception as error:  # each driver has exceptions of its own
        raise DataError(f"{pattern}: {' '.join(str(error).split())}") from error
