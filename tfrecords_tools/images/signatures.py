"""The first bytes of image files, by which a file is known whatever its name."""

import os
import re

from tfrecords_tools import regular_files
from tfrecords_tools.errors import UsageError

HEAD_BYTES = 32
# The first bytes of the formats that `images.image` reads; TGA has none and goes by its name.
_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|II\+\0|MM\0\+"
    rb"|....ftyp(?:avif|avis|hei[cxms]|hevc|mif1|msf1)|\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51|P[1-6]\s+[\d#]"
    rb"|\0\0\x01\0[\x01-\xff]\0",
    re.DOTALL,
)


def is_image(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an image."""
    return _SIGNATURE.match(head) is not None


def require_no_image(path: str | os.PathLike, flag: str) -> None:
    """Raises UsageError when an output that `flag` names would replace an image."""
    try:
        file = regular_files.open_descriptor(path)
    except OSError:  # there is none, or it is a device or a pipe, which is not replaced
        return
    try:
        head = os.pread(file, HEAD_BYTES, 0)
    finally:
        os.close(file)
    if is_image(head):
        raise UsageError(f"--{flag}={os.fspath(path)} is an image, which would be lost; set another --{flag}")
