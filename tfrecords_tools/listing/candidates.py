"""Which files of a source are taken for images, and why the others are not: the same for all commands."""

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.folder import (
    EMPTY_DIRECTORY,
    SYSTEM_DIRECTORY,
    DamagedMember,
    FolderEntry,
    Source,
    is_system_directory,
)
from tfrecords_tools.images import signatures

# TIFF files by their first bytes, of which Pillow would read the preview.
_CAMERA_RAW = frozenset(
    b".3fr .arw .cr2 .crw .dcr .dng .erf .kdc .mos .mrw .nef .nrw .orf .pef .rw2 .srw".split()
)


class Kind(enum.Enum):
    """What a file is taken for."""

    IMAGE = enum.auto()
    REJECTED = enum.auto()  # perhaps an image, but it cannot be read
    SKIPPED = enum.auto()  # not an image
    EMPTY_DIRECTORY = enum.auto()
    SYSTEM = enum.auto()  # a directory that a notebook, an archive tool or a system made, with all it holds


class Candidate(NamedTuple):
    """A file, what it is taken for, and why it is no image ("" for an image)."""

    entry: FolderEntry
    kind: Kind
    reason: str


def walk(source: Source) -> Iterator[Candidate]:
    """Every file of a source, in the source's order; a system directory comes once, for all that it holds."""
    last_folder, last_system = b"", b""
    systems: set[bytes] = set()  # an archive may come back to one
    for entry in source.walk():
        if entry.problem == SYSTEM_DIRECTORY:
            yield Candidate(entry, Kind.SYSTEM, entry.problem)
            continue
        if entry.values is not None:  # the source knows its images, and their keys are no names of files
            yield Candidate(entry, Kind.REJECTED if entry.problem else Kind.IMAGE, entry.problem)
            continue
        folder = entry.key.rpartition(b"/")[0]
        if folder != last_folder:
            last_folder = folder
            system = _system_directory(folder)
            if system and system not in systems:
                systems.add(system)
                yield Candidate(FolderEntry(system, 0, SYSTEM_DIRECTORY), Kind.SYSTEM, SYSTEM_DIRECTORY)
            last_system = system
        if not last_system or not folder:
            yield Candidate(entry, *_classify(source, entry))


def system_line(directories: Sequence[bytes]) -> str:
    """A line for people on the system directories that were passed over; "" if there were none."""
    if not directories:
        return ""
    shown = ", ".join(records.key_shown(key).rstrip("/") for key in directories[:3])
    more = f" and {len(directories) - 3:,} more" if len(directories) > 3 else ""
    word = "directory" if len(directories) == 1 else "directories"
    return f"passed over {len(directories):,} hidden or system {word}: {shown}{more}"


def _system_directory(folder: bytes) -> bytes:
    """The first directory of a path that is a system directory, with its path and a slash; b"" if none is."""
    parts = folder.split(b"/")
    for index, part in enumerate(parts):
        if is_system_directory(part):
            return b"/".join(parts[: index + 1]) + b"/"
    return b""


def _classify(source: Source, entry: FolderEntry) -> tuple[Kind, str]:
    if entry.problem == EMPTY_DIRECTORY:
        return Kind.EMPTY_DIRECTORY, entry.problem
    if entry.problem:
        return Kind.REJECTED, entry.problem
    name = entry.key.rpartition(b"/")[2]
    ending = storage.suffix(name)
    if name.startswith((b".", b"~")) or name in (b"Thumbs.db", b"desktop.ini"):
        return Kind.SKIPPED, "a hidden or system file"
    if ending in storage.IMAGE_SUFFIXES:
        return Kind.IMAGE, ""
    shown = records.key_shown(ending) or "no ending"
    if ending in _CAMERA_RAW:
        return Kind.SKIPPED, f"a camera's raw file ({shown}); develop it to PNG or TIFF first"
    try:
        head = source.head(entry, signatures.HEAD_BYTES)
    except PermissionError:
        return Kind.SKIPPED, f"not an image by its name ({shown}), and unreadable: permission denied"
    except (OSError, DataError, DamagedMember) as error:
        return Kind.SKIPPED, f"not an image by its name ({shown}), and unreadable: {error}"
    if signatures.is_image(head):
        return Kind.IMAGE, ""
    return Kind.SKIPPED, f"not an image by its name ({shown}) and its first bytes"
