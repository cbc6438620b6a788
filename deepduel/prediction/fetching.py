"""Images by their path or URL -> their bytes: local files, http(s), and whatever fsspec has a driver for."""

import contextlib
import http.client
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from tfrecords_tools import regular_files
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage

_TIMEOUT_SECONDS = 30
_WEB = ("http://", "https://")
_OF_URLS = "%/:?#[]@!$&'()*+,;=~"  # what stays as it is in a URL; spaces and letters beyond ASCII are encoded


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
    with _as_os_errors():
        data = _read_web(name, limit + 1) if name.startswith(_WEB) else _read_stored(name, limit + 1)
    if len(data) > limit:
        raise OSError(f"more than {limit:,} bytes")
    return data


def _read_web(url: str, size: int) -> bytes:
    url = urllib.parse.quote(url, safe=_OF_URLS)
    request = urllib.request.Request(url, headers={"User-Agent": "deepduel"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        return response.read(size)


def _read_stored(url: str, size: int) -> bytes:
    files, place = _file_system(url)
    with files.open(place, "rb") as file:
        return file.read(size)


def is_folder(url: str) -> bool:
    """Whether a URL names a folder. A web address is always taken for a file."""
    if url.startswith(_WEB):
        return False
    files, place = _file_system(url)
    try:
        with _as_os_errors():
            return bool(files.isdir(place))
    except OSError as error:
        raise DataError(f"{url}: {error.strerror or error}") from error


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """What a server or a driver objects to, as an OSError of one line."""
    try:
        yield
    except (OSError, DataError, MemoryError):
        raise
    except http.client.HTTPException as error:  # a connection that was cut off, a URL that is none
        raise OSError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    except Exception as error:  # each driver has exceptions of its own
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error


def _file_system(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it) of a URL. Raises DataError."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"{url}: {error}; pip install the driver, or 'deepduel[remote]'") from error
    except ValueError as error:
        raise DataError(f"{url}: {error}") from error
