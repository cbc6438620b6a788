"""Sources whose images have labels as data, not as directories: WebDataset, Parquet, TensorFlow Datasets.

Their images get keys as files of a folder have them, `SPLIT/LABEL/…/NAME`, unless the source gives keys of
its own, as `tfrecords_tools.export` does.
"""

import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import split_names
from tfrecords_tools.sources import member_names
from tfrecords_tools.sources.spool import Spooled

SPLIT, CATEGORY, AUTHENTICITY = "split", "category", "authenticity"
KEY = "key"
DEFAULT_SPLIT = "train"
# Names of columns that mean a class and say nothing of its kind; any other name is the axis' own.
CLASS_COLUMNS = ("label", "labels", "class", "cls", "class_label", "target", CATEGORY, AUTHENTICITY)
_REAL_OR_FAKE = {"real", "fake"}
_SHARD_NAME = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}")  # Hugging Face's and ours
_ENDINGS = (
    (b"\xff\xd8\xff", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)  # fmt: skip


class Labelled(Spooled):
    """A `Source` whose entries have `values`.

    Attributes:
      root: what the user named.
      axes: the label axes, in their order.
      class_names: the names of an axis in label order, where the source numbers them.
    """

    root: str
    axes: tuple[str, ...]
    class_names: dict[str, tuple[str, ...]]

    @property
    def layout(self) -> str:
        """The template that the images' values fill in."""
        return "/".join(f"{{{level}}}" for level in (SPLIT, *self.axes))

    def exists(self) -> bool:
        return True  # or else the constructor fails

    def size(self, name: str) -> int | None:
        return None  # no tables of labels beside the images

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        raise FileNotFoundError(name)


class Keys:
    """Gives images their keys, each once."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def own(self, value: Any) -> bytes | None:
        """A key that a source gives an image; None for what is none, and for one that comes twice."""
        try:
            key = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        except UnicodeEncodeError:  # half a character, which JSON may have
            return None
        if not isinstance(key, bytes) or member_names.to_key(key) != (key, "") or _hash(key) in self._hashes:
            return None
        self._hashes.add(_hash(key))
        return key

    def key(self, values: Mapping[str, str], name: str, position: str, data: bytes) -> bytes:
        """A key for an image.

        Args:
          values: its split and labels, in the order of the axes.
          name: its own name or path in the source; "" for none. Of a path that leads out, such as an
            absolute one of the machine that wrote the files, the last part counts.
          position: where it lies in the source, such as "train-00000-of-00004-000123".
          data: its first bytes, which give a missing name its ending.
        """
        folder = b"/".join(_part(value) for value in values.values())
        path = name.replace("\0", "_").encode("utf-8", "surrogateescape")
        own, problem = member_names.to_key(path)
        if problem:
            own, problem = member_names.to_key(path.rpartition(b"/")[2])
        if problem:
            own = position.encode() + ending(data).encode()
        key = folder + b"/" + own
        if _hash(key) in self._hashes:
            stem, dot, rest = own.rpartition(b".")
            own = stem + b"-" + position.encode() + dot + rest if dot else own + b"-" + position.encode()
            key = folder + b"/" + own
        self._hashes.add(_hash(key))
        return key


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _part(value: str) -> bytes:
    """A split or a label as one part of a path."""
    part = value.replace("/", "_").replace("\0", "_").encode("utf-8", "backslashreplace")
    return part if part not in (b"", b".", b"..") else b"_"


def ending(data: bytes) -> str:
    """A file ending for an image's first bytes; "" for an unknown kind."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((name for head, name in _ENDINGS if data.startswith(head)), "")


def axis_of(column: str, names: Sequence[str] = ()) -> str:
    """The label axis that a column of classes becomes.

    Args:
      column: its name.
      names: of its classes, where they are known: real and fake are an authenticity.
    """
    if {name.casefold() for name in names} == _REAL_OR_FAKE:
        return AUTHENTICITY
    if column in CLASS_COLUMNS and column != AUTHENTICITY:
        return CATEGORY
    axis = re.sub(r"\W", "_", column, flags=re.ASCII).lstrip("_0123456789")
    return axis or CATEGORY


def ordered(axes: Sequence[str]) -> tuple[str, ...]:
    """Label axes in the order in which every data set has them: authenticity first."""
    return tuple(sorted(axes, key=lambda axis: axis != AUTHENTICITY))


def split_of(name: str, *, sharded: bool = False) -> str | None:
    """The split that a file's path names; None for none.

    Args:
      name: such as "data/train-000012.tar" or "test/0000.parquet".
      sharded: SPLIT-00000-of-00004 may name any split, as Hugging Face writes it.
    """
    shard = _SHARD_NAME.search(name.rpartition("/")[2]) if sharded else None
    if shard:
        return shard["split"]
    *directories, base = name.casefold().split("/")
    words = [word for word in re.split(r"[^a-z]+", base) if word in split_names.WORDS]
    words += [directory for directory in reversed(directories) if directory in split_names.WORDS]
    return words[0] if words else None


def splits_of(names: Sequence[str], *, sharded: bool = False) -> list[str | None]:
    """The split of each file by its name: all train when no name says one, None when only others do."""
    top = len(_common_folder(names))
    splits = [split_of(name[top:], sharded=sharded) for name in names]
    return splits if any(splits) else [DEFAULT_SPLIT] * len(names)


def _common_folder(names: Sequence[str]) -> str:
    """What is above the last directory that all files share."""
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    folder = first[: first.rfind("/", 0, same)]
    return folder[: folder.rfind("/") + 1]


def split_value(own: Any, of_file: str | None, file: str) -> str:
    """An image's split: what it says itself, else what its file's name says.

    Raises:
      DataError: neither says it, though other files do.
    """
    if isinstance(own, str) and own:
        return own
    if of_file is None:
        raise DataError(
            f"{file}: names no split, but other files do; rename it, for example to "
            f"train-{pathlib.Path(file).name}, or convert the files of one split"
        )
    return of_file


def without_split(columns: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """--label_columns -> (axis -> column, the column that --label_columns=split=COLUMN names or None)."""
    return {axis: column for axis, column in columns.items() if axis != SPLIT}, columns.get(SPLIT)


def named_split(value: Any, column: str, names: Sequence[str] = ()) -> str:
    """The split that a column names. Raises ValueError where it names none."""
    split = label_name(value, names)
    if split is None:
        raise ValueError(f"no split in its {column}")
    return split


def label_name(value: Any, names: Sequence[str]) -> str | None:
    """The class name of a label as a source stores it: a number with or without names, or a name.

    Returns None for no label: nothing, an empty text, or -1 as Hugging Face and TFDS write it.

    Raises:
      ValueError: a number that has no name.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        if value < 0:
            return None
        if not names:
            return str(value)
        if value >= len(names):
            raise ValueError(f"the label {value}, but there are only {len(names)} class names")
        return names[value]
    return str(value)


def label_columns(text: str) -> dict[str, str]:
    """`--label_columns`, AXIS=COLUMN,…, as a mapping from axis to column. Raises UsageError."""
    columns = {}
    for part in filter(None, text.split(",")):
        axis, equals, column = part.partition("=")
        if not equals or not axis.strip().isidentifier() or not column.strip():
            raise UsageError(f"--label_columns={text}: {part!r} is not AXIS=COLUMN, such as category=species")
        columns[axis.strip()] = column.strip()
    return columns
