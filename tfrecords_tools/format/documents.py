"""JSON that may come from a stranger -> typed values, all of them checked before any is used.

Types, ranges and the form of every name are those of the annotations below. A name that becomes part of a
path is a `FileName`, an `AxisName` or a `SplitName`: it holds no separator, so it cannot leave its folder.
"""

import json
import os
import re
from typing import Annotated, Any, TypeVar

import msgspec

from tfrecords_tools import regular_files

MAX_BYTES = 64 << 20  # of a document: room for the manifest of 150,000 shards

_LONGEST = 255  # letters of a name, as file systems allow
# `\Z`, because `$` would let a newline follow. Axes of version 0.1.0 have no hyphen.
AxisName = Annotated[
    str, msgspec.Meta(pattern=r"^(?!(?:image|key)\Z)[A-Za-z][A-Za-z0-9_-]*\Z", max_length=_LONGEST)
]
SplitName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*\Z", max_length=_LONGEST)]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z", max_length=_LONGEST)]
DataName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=_LONGEST)]
OptionName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*\Z", max_length=_LONGEST)]
LabelName = Annotated[str, msgspec.Meta(pattern="^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\\Z")]  # on one line
HexDigest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]*\Z", max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 14)]  # of an image, in pixels
Seed = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]

T = TypeVar("T")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a pair that is one character, as JSON may escape it


def parse(data: bytes | str) -> Any:
    """The plain values of a JSON document.

    Raises:
      ValueError: it is no JSON in UTF-8, is nested too deeply, is larger than `MAX_BYTES`, or has half a
        character, which could be written nowhere; one line.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes, more than the {MAX_BYTES:,} that are read")
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    try:
        document = json.loads(text)
        if _HALF.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise ValueError(f"has U+{half:04X}, which is only half of a character") from None
    return document


def check(document: Any, kind: type[T]) -> T:
    """Plain values -> `kind`, a dataclass, a TypedDict or a container of them. Unknown fields are left out.

    Raises:
      ValueError: a field is missing, or has another type, range or form; names it in one line.
    """
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error) or "nested too deeply") from error


def read(data: bytes | str, kind: type[T]) -> T:
    """A JSON document -> `kind`; see `parse` and `check`. Raises ValueError."""
    return check(parse(data), kind)


def read_file(path: str | os.PathLike, kind: type[T]) -> T:
    """A regular file with a JSON document -> `kind`. Raises OSError, or ValueError as `read` does."""
    return read(regular_files.read(path, limit=MAX_BYTES), kind)
