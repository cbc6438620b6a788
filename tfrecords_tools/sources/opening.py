"""What `--input` names -> a `Source`."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import storage
from tfrecords_tools.format.folder import Source
from tfrecords_tools.sources.spool import Spooled

TAR_ENDINGS = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst",
)  # fmt: skip
ARCHIVE_ENDINGS = (".zip", *TAR_ENDINGS)
LABELLED = ("tfds", "tar", "parquet")  # KIND:… in --input
_PATTERN = re.compile(rf"(?P<kind>{'|'.join(LABELLED)}):(?P<rest>.*)", re.DOTALL)


class Described(NamedTuple):
    """An `--input`, taken apart: its kind ("folder", "archive" or one of `LABELLED`) and what follows it."""

    kind: str
    rest: str


def describe(url: str) -> Described:
    """Takes an `--input` apart. Raises UsageError when nothing follows its kind."""
    matched = _PATTERN.fullmatch(url)
    if matched:
        if not matched["rest"]:
            raise UsageError(
                f"--input={url} names nothing; for example tfds:mnist, tar:data/*.tar, parquet:data"
            )
        return Described(matched["kind"], matched["rest"])
    if url.lower().endswith(ARCHIVE_ENDINGS) and not os.path.isdir(url):  # noqa: PTH112, a Path of "" is the current directory
        return Described("archive", url)
    return Described("folder", url)


def open_source(
    url: str | os.PathLike, *, label_columns: Mapping[str, str] | None = None, spool_folder: str | None = None
) -> Source:
    """Opens a source of images.

    Args:
      url: a folder or its URL, an archive, `tfds:NAME[:SPLIT]`, `tar:PATTERN` or `parquet:PATTERN`.
      label_columns: axis -> column, field or feature with its labels, for the last three.
      spool_folder: where images are copied to that can only be read in order; None for a temporary folder.

    Raises:
      DataError: there is no such thing, it is damaged, or a library to read it is missing.
      UsageError: labels of columns are asked for, but there are none.
    """
    url = os.fspath(url)
    kind, rest = describe(url)
    columns = label_columns or {}
    if kind == "archive" and rest.lower().endswith(TAR_ENDINGS):
        from tfrecords_tools.sources import tar_archive

        return tar_archive.TarArchive(rest, spool_folder)
    if kind == "archive":
        from tfrecords_tools.sources import zip_archive

        return zip_archive.ZipArchive(rest)
    if kind == "tar":
        from tfrecords_tools.sources import webdataset

        return webdataset.WebDataset(rest, columns, spool_folder)
    if kind == "parquet":
        from tfrecords_tools.sources import parquet

        return parquet.Parquet(rest, columns, spool_folder)
    if kind == "tfds":
        from tfrecords_tools.sources import tfds

        return tfds.Tfds(rest, columns, spool_folder)
    return storage.open_folder(url)


def close(source: Source) -> None:
    """Removes what a source copied to read from, when the conversion is done."""
    if isinstance(source, Spooled):
        source.close()


def default_name(url: str) -> str:
    """The name of what `--input` names, of which a data set's name is made."""
    kind, rest = describe(url)
    if kind == "tfds":
        rest = re.sub(r":[^/]*$", "", rest)
        versioned = pathlib.PurePath(rest)
        return versioned.parent.name if re.fullmatch(r"\d+\.\d+\.\d+", versioned.name) else rest
    if kind == "archive":
        ending = max((end for end in ARCHIVE_ENDINGS if rest.lower().endswith(end)), key=len)
        return rest[: -len(ending)]
    if kind == "folder":
        return rest
    folder = rest if os.path.isdir(rest) else rest.rpartition("/")[0]  # noqa: PTH112, a Path of "" is the current directory
    return folder or "."
