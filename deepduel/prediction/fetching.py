"""Images by their path or URL -> their bytes: local files, http(s), and whatever fsspec has a driver for."""

import urllib.request
from typing import Any

from tfrecords_tools import regular_files
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage

_TIMEOUT_SECONDS = 30
_WEB = ("http://", "https://")


def read(path: bytes, *, limit: int) -> bytes:
    """The bytes of an image file, at most `limit` of them.

    Args:
      path: a path or a URL.

    Raises:
      OSError: it cannot be read, or is larger.
      DataError: no driver for the URL is installed.
    """
    name = records.key_text(path)
    if not storage.is_remote(name):
        return regular_files.read(path, limit=limit)
    if name.startswith(_WEB):
        request = urllib.request.Request(name, headers={"User-Agent": "deepduel"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            data = response.read(limit + 1)
    else:
        files, place = _file_system(name)
        with files.open(place, "rb") as file:
            data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"more than {limit:,} bytes")
    return data


def is_folder(url: str) -> bool:
    """Whether a URL names a folder. A web address is always taken for a file."""
    if url.startswith(_WEB):
        return False
    files, place = _file_system(url)
    return bool(files.isdir(place))


def _file_system(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it) of a URL. Raises DataError."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"{url}: {error}; pip install the driver, or 'deepduel[remote]'") from error
    except ValueError as error:
        raise DataError(f"{url}: {error}") from error
