"""Which images and classes are taken, how classes are called, and in which order they are numbered."""

import collections
import dataclasses
import fnmatch
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import records
from tfrecords_tools.listing import path_list

SORTED, NATURAL = "sorted", "natural"
_DIGITS = re.compile(r"(\d+)")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is taken of a folder.

    Attributes:
      include: patterns; an image is taken if one of them matches. Patterns with a slash are for its path from
        the top, others for each directory and the file name; or, where they match no path, for the names of
        its labels. () takes all.
      exclude: patterns for paths and for names of labels; an image is left out if one of them matches.
      excluded: paths of images that are left out.
      merge: name -> new name, of classes and splits.
      order: "sorted" by code points, "natural" (`class2` before `class10`), or a file with a name per line.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    merge: Mapping[str, str] = dataclasses.field(default_factory=dict)
    order: str = SORTED

    def excludes(self, key: bytes) -> bool:
        """Whether a file is left out by its path."""
        if not self.exclude and not self.excluded:
            return False
        path = records.key_text(key).rstrip("/")
        return path in self.excluded or _matches(path, self.exclude)

    def includes(self, key: bytes) -> bool:
        """Whether a file is taken by its path."""
        return not self.include or _matches(records.key_text(key).rstrip("/"), self.include)

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names of an axis in label order.

        Raises:
          DataError: the file of the order cannot be read, or lacks one of the names.
        """
        names = set(names)
        if self.order == SORTED:
            return tuple(sorted(names))
        if self.order == NATURAL:
            return tuple(sorted(names, key=lambda name: (natural_key(name), name)))
        listed = _read_names(self.order)
        unknown = sorted(names - set(listed))
        if unknown:
            raise DataError(
                f"--class_order={self.order}: it lacks the class {unknown[0]!r}; add it, leave its images "
                f"out with --exclude={unknown[0]}, or rename it with --merge={unknown[0]}:NAME"
            )
        return tuple(listed)

    def excluded_line(self, left_out: Collection[str]) -> str:
        """A line on how many of the paths in `excluded` are among those that were left out; "" for none."""
        if not self.excluded:
            return ""
        count = len(self.excluded.intersection(left_out))
        line = f"{count:,} of the {len(self.excluded):,} paths that --exclude lists are left out"
        return line if count else f"warning: {line}: they must be relative to --input_dir"

    def unused_lines(
        self, taken: Iterable[bytes], left_out: Collection[bytes], names: Collection[str]
    ) -> list[str]:
        """Lines for people on patterns that match nothing, as one that is misspelt does.

        Args:
          taken: keys of the images that are taken by their paths.
          left_out: keys of the files that are not.
          names: of the labels that the images have.
        """
        lines = []
        for flag, patterns, keys in (("include", self.include, taken), ("exclude", self.exclude, left_out)):
            unused = [one for one in patterns if not any(matches_name(name, [one]) for name in names)]
            for key in keys if unused else ():
                path = records.key_text(key).rstrip("/")
                unused = [one for one in unused if not _matches(path, (one,))]
                if not unused:
                    break
            lines += [f"warning: --{flag}={one} matches no path and no class" for one in unused]
        return lines

    def require_used(self, names: Collection[str]) -> None:
        """Raises DataError when `merge` has a name that no class and no split has."""
        for old in self.merge:
            if old not in names:
                raise DataError(f"--merge={old}:{self.merge[old]}: there is no class or split {old!r}")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A key by which numbers in names sort as numbers."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.casefold())
        for part in _DIGITS.split(name)
        if part
    ]


def parse_patterns(text: str) -> tuple[str, ...]:
    """Patterns separated by commas."""
    return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())


def parse_exclude(text: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Patterns and, as @FILE, files of paths, separated by commas -> the patterns, the paths.

    Raises:
      DataError: a file cannot be read.
    """
    parts = parse_patterns(text)
    paths = [path_list.read(part[1:]) for part in parts if part.startswith("@")]
    return tuple(part for part in parts if not part.startswith("@")), frozenset().union(*paths)


def parse_merge(texts: Iterable[str]) -> dict[str, str]:
    """`OLD,OLD:NEW` each -> old name -> new name. Raises UsageError."""
    merge: dict[str, str] = {}
    for text in texts:
        old, colon, new = text.rpartition(":")
        names = [name.strip() for name in old.split(",")]
        if not colon or not new.strip() or not all(names):
            raise UsageError(f"--merge={text}: must be OLD,OLD:NEW, such as lion,tiger:cat")
        for name in names:
            if merge.setdefault(name, new.strip()) != new.strip():
                raise UsageError(
                    f"--merge={text}: {name!r} cannot become both {merge[name]!r} and {new.strip()!r}"
                )
    return merge


def matches_name(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches the name of a label."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    parts = path.split("/")
    for pattern in patterns:
        if "/" in pattern:
            depth = pattern.count("/") + 1
            if fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase("/".join(parts[:depth]), pattern):
                return True
        elif any(fnmatch.fnmatchcase(part, pattern) for part in parts):
            return True
    return False


def _read_names(file: str) -> list[str]:
    try:
        with pathlib.Path(file).open(encoding="utf-8-sig") as stream:
            names = [line.strip() for line in stream if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"--class_order={file}: cannot be read ({error}); it is {SORTED}, {NATURAL}, or a file with the "
            "name of a class on each line"
        ) from error
    again, times = max(collections.Counter(names).items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise DataError(f"--class_order={file}: the class {again!r} occurs twice")
    return names
