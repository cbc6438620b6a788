"""Layout templates: which part of a path says what.

`{split}/{authenticity}/{category}` names the directories from the top. A part is `{split}`,
`{axis}` for a label axis of that name, `*` for any directory, `**` for any number of them, or a literal
name. The last part may be a pattern of file names with an axis in it, such as `{category}_*.jpg`.
Directories deeper than the template have no meaning.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Collection, Iterable, Mapping

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import split_names

SPLIT = "split"
AUTHENTICITY = "authenticity"
CATEGORY = "category"
TRUTH_WORDS = {"0": "real", "1": "fake", "real": "real", "fake": "fake"}  # of authenticity
DEFAULT_SPLIT = "train"  # where a layout has no {split}
RESERVED = ("image", "key")  # features of a record, which no axis may be called
_FIELD = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
ANY_DEPTH = "**"
_REAL_OR_FAKE = frozenset(("real", "fake"))

Folder = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A parsed template.

    Attributes:
      template: as written; "" for images right in the input folder.
    """

    template: str

    def __post_init__(self) -> None:
        if self.parts.count(ANY_DEPTH) > 1:
            raise UsageError(f"--layout={self.template}: {ANY_DEPTH} occurs twice")
        last = len(self.parts) - 1
        fields = [
            field
            for number, part in enumerate(self.parts)
            for field in _fields(part, self.template, number == last)
        ]
        for field in fields:
            if fields.count(field) > 1:
                raise UsageError(f"--layout={self.template}: {{{field}}} occurs twice")
            if field in RESERVED:
                raise UsageError(f"--layout={self.template}: {{{field}}} cannot be a label axis: "
                                 "a record has a feature of that name; choose another")  # fmt: skip

    @property
    def parts(self) -> Folder:
        return tuple(part for part in self.template.split("/") if part)

    @property
    def has_split(self) -> bool:
        return f"{{{SPLIT}}}" in self.template

    @property
    def axes(self) -> tuple[str, ...]:
        """Label axes: authenticity first, then as they stand in the template."""
        axes = [field for part in self.parts for field in _FIELD.findall(part) if field != SPLIT]
        return tuple(sorted(axes, key=lambda axis: axis != AUTHENTICITY))

    @property
    def directories(self) -> Folder:
        """The parts for directories."""
        return self.parts[:-1] if self._file_pattern else self.parts

    @property
    def file_axes(self) -> tuple[str, ...]:
        """The axes that the file name gives."""
        return tuple(_FIELD.findall(self.parts[-1])) if self._file_pattern else ()

    @functools.cached_property
    def _file_pattern(self) -> re.Pattern[str] | None:
        """The last part where it is for file names, as `{category}_*.jpg` is."""
        last = self.parts[-1] if self.parts else ""
        if not _FIELD.search(last) or _FIELD.fullmatch(last):
            return None
        pattern = ""
        for text in re.split(r"(\{\w+\}|\*|\?)", last):
            named = _FIELD.fullmatch(text)
            pattern += f"(?P<{named[1]}>.+)" if named else {"*": ".*?", "?": "."}.get(text, re.escape(text))
        return re.compile(pattern, re.DOTALL)

    def match(self, folder: Folder) -> dict[str, str] | None:
        """The values that a directory's parts have; None when the directory does not fit.

        A directory that ends at {split} fits too, without labels.
        """
        parts = self.directories
        if ANY_DEPTH in parts:
            above = parts.index(ANY_DEPTH)
            below = len(parts) - above - 1
            if len(folder) < above + below:
                return None
            folder = folder[:above] + folder[len(folder) - below :]
            parts = parts[:above] + parts[above + 1 :]
        values = {}
        for part, name in zip(parts, folder, strict=False):
            if part.startswith("{"):
                values[part[1:-1]] = name
            elif part not in ("*", name):
                return None
        if len(folder) >= len(parts):
            return values
        missing = parts[len(folder) :]
        if self.has_split and "{split}" not in missing and not any(axis in values for axis in self.axes):
            return values
        return None

    def match_file(self, name: str) -> dict[str, str] | None:
        """The values that a file's name gives; None when it does not fit."""
        if self._file_pattern is None:
            return {}
        matched = self._file_pattern.fullmatch(name)
        return matched.groupdict() if matched else None


def _fields(part: str, template: str, last: bool) -> list[str]:
    matched = _FIELD.fullmatch(part)
    if matched:
        return [matched[1]]
    fields = _FIELD.findall(part)
    if last and fields and not re.search(r"[{}]", _FIELD.sub("", part)):
        return fields
    if "{" in part or "}" in part:
        raise UsageError(
            f"--layout={template}: {part!r} is not {{name}}, * or a plain directory name; for example "
            "{split}/{authenticity}/{category}. Only the last part may be a pattern of file names, such as "
            "{category}_*.jpg"
        )
    return []


def detect(folders: Mapping[Folder, int]) -> Layout:
    """The layout of a tree, from its directories with images and how many lie in each.

    Known: `split/real|fake/class`, `split/class`, `real|fake/class`, `class`, and no directories
    at all (then metadata.csv has to give the labels). Flat splits have no labels. A level at which
    all directories have one name, such as `archive/train/…`, says nothing and is passed over.

    Raises:
      DataError: none of these; the message names the directories.
    """
    above: list[str] = []
    while _is_wrapper(folders):
        folders = {folder[1:]: count for folder, count in folders.items()}
        above.append("*")
    tops = {folder[0] for folder in folders if folder}
    if not tops:
        return Layout("/".join(above))
    known = {top for top in tops if split_names.role(top)}
    if len(tops) > 1 and all(split_names.role(top) or split_names.role_at_end(top) for top in tops):
        known = tops
    if known and known != tops:
        others = _some(tops - known)
        raise DataError(
            f"layout: {_some(known)} look like splits and {others} do not; leave directories out with "
            "--exclude, or say what is what, for example --layout='{split}/{category}' or "
            "--layout='{category}'"
        )
    if not known:
        return Layout("/".join(above + _label_levels(set(folders) - {()})))
    levels = [*above, "{split}"]
    rests = {(folder[0], folder[1:]) for folder in folders if folder}
    while _is_wrapped_in_each_split(rests):
        rests = {(split, rest[1:]) for split, rest in rests}
        levels.append("*")
    labelled = {rest for _, rest in rests if rest}
    return Layout("/".join(levels + (_label_levels(labelled) if labelled else [])))


def detect_splits(folders: Mapping[Folder, int]) -> Layout:
    """The splits of a tree whose directories are no labels."""
    try:
        layout = detect({folder[:1]: count for folder, count in folders.items()})
    except DataError:
        return Layout("")
    return layout if layout.has_split else Layout("")


def _is_wrapper(folders: Iterable[Folder]) -> bool:
    """Whether all images lie below one directory that is neither a split nor a class."""
    tops = {folder[:1] for folder in folders}
    if len(tops) != 1 or not all(len(folder) > 1 for folder in folders):
        return False
    (top,) = tops
    return not split_names.role(top[0]) and top[0].casefold() not in _REAL_OR_FAKE


def _is_wrapped_in_each_split(rests: Iterable[tuple[str, Folder]]) -> bool:
    """Whether each split has one directory, in which all its class directories or all its images lie."""
    tops: dict[str, set[Folder]] = collections.defaultdict(set)
    below: dict[str, set[Folder]] = collections.defaultdict(set)
    for split, rest in rests:
        tops[split].add(rest[:1])
        below[split].add(rest[1:2])
    classes = {
        top[0]
        for folders in below.values()
        for top in folders
        if top and top[0].casefold() not in _REAL_OR_FAKE
    }
    mixed = any(() in folders and len(folders) > 1 for folders in below.values())
    return (
        all(len(folders) == 1 and () not in folders for folders in tops.values())
        and len(classes) > 1
        and not mixed
    )


def _label_levels(rests: Collection[Folder]) -> list[str]:
    depths = {len(rest): rest for rest in sorted(rests)}
    if len(depths) > 1:
        low, high = (depths[pick(depths)] for pick in (min, max))
        raise DataError(
            f"layout: labelled images lie at different depths, in {'/'.join(low)} and in {'/'.join(high)}; "
            "name the levels, for example --layout='{split}/{category}', or --layout='**/{category}' for the "
            "deepest"
        )
    (depth,) = depths
    names = [{rest[level] for rest in rests} for level in range(depth)]
    truth = [level for level in range(depth) if {name.casefold() for name in names[level]} <= _REAL_OR_FAKE][
        :1
    ]
    several = [level for level in range(depth) if level not in truth and len(names[level]) > 1]
    if len(several) > 1:
        shown = " / ".join(_some(level) for level in names)
        fields = dict.fromkeys(truth, AUTHENTICITY) | {several[0]: SPLIT, several[-1]: CATEGORY}
        example = "/".join(f"{{{fields[level]}}}" if level in fields else "*" for level in range(depth))
        raise DataError(
            f"layout: the directory levels {shown} could mean several things; name each, for example "
            f"--layout='{example}', or --layout='**/{{category}}' for the deepest alone"
        )
    if not several:  # a data set of one class
        several = [level for level in range(depth) if level not in truth][-1:]
    fields = dict.fromkeys(truth, AUTHENTICITY) | dict.fromkeys(several, CATEGORY)
    return [f"{{{fields[level]}}}" if level in fields else "*" for level in range(max(fields) + 1)]


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
