"""Layout templates: which part of a path says what.

`{split}/{authenticity}/{category}` names the directories from the top. A part is `{split}`,
`{axis}` for a label axis of that name, `*` for any directory, or a literal name. Directories
deeper than the template, and the file name, have no meaning.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import split_names

SPLIT = "split"
AUTHENTICITY = "authenticity"
CATEGORY = "category"
TRUTH_WORDS = {"0": "real", "1": "fake", "real": "real", "fake": "fake"}  # of authenticity
DEFAULT_SPLIT = "train"  # where a layout has no {split}
RESERVED = ("image", "key")  # features of a record, which no axis may be called
_FIELD = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
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
        fields = [field for part in self.parts if (field := _field(part, self.template))]
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
        return "{split}" in self.parts

    @property
    def axes(self) -> tuple[str, ...]:
        """Label axes: authenticity first, then as they stand in the template."""
        axes = [part[1:-1] for part in self.parts if part.startswith("{") and part != "{split}"]
        return tuple(sorted(axes, key=lambda axis: axis != AUTHENTICITY))

    def match(self, folder: Folder) -> dict[str, str] | None:
        """The values that a directory's parts have; None when the directory does not fit.

        A directory that ends at {split} fits too, without labels.
        """
        values = {}
        for part, name in zip(self.parts, folder, strict=False):
            if part.startswith("{"):
                values[part[1:-1]] = name
            elif part not in ("*", name):
                return None
        if len(folder) >= len(self.parts):
            return values
        missing = self.parts[len(folder) :]
        if self.has_split and "{split}" not in missing and not any(axis in values for axis in self.axes):
            return values
        return None


def _field(part: str, template: str) -> str | None:
    matched = _FIELD.fullmatch(part)
    if matched:
        return matched[1]
    if "{" in part or "}" in part:
        raise UsageError(
            f"--layout={template}: {part!r} is no {{name}}, * or plain directory name; "
            "for example {split}/{authenticity}/{category}"
        )
    return None


def detect(folders: Mapping[Folder, int]) -> Layout:
    """The layout of a tree, from its directories with images and how many lie in each.

    Known: `split/real|fake/class`, `split/class`, `real|fake/class`, `class`, and no directories
    at all (then metadata.csv has to give the labels). Flat splits have no labels.

    Raises:
      DataError: none of these; the message names the directories.
    """
    tops = {folder[0] for folder in folders if folder}
    if not tops:
        return Layout("")
    known = {top for top in tops if split_names.role(top)}
    if len(tops) > 1 and all(split_names.role(top) or split_names.role_at_end(top) for top in tops):
        known = tops
    if known and known != tops:
        raise DataError(
            f"layout: {_some(known)} look like splits and {_some(tops - known)} do not; "
            "say what is what, for example --layout='{split}/{category}' or --layout='{category}'"
        )
    start = 1 if known else 0
    rests: collections.Counter[Folder] = collections.Counter()
    for folder, count in folders.items():
        if len(folder) > start:
            rests[folder[start:]] += count
    levels = ["{split}"] if known else []
    if not rests:
        return Layout("/".join(levels))
    depths = {len(rest): rest for rest in sorted(rests)}
    if len(depths) > 1:
        low, high = (depths[pick(depths)] for pick in (min, max))
        raise DataError(
            f"layout: labelled images lie at different depths, in {'/'.join(low)} and in {'/'.join(high)}; "
            "name the levels, for example --layout='{split}/{category}'"
        )
    return Layout("/".join(levels + _label_levels(rests)))


def _label_levels(rests: Mapping[Folder, int]) -> list[str]:
    depth = len(next(iter(rests)))
    names = [{rest[level] for rest in rests} for level in range(depth)]
    truth = [level for level in range(depth) if {name.casefold() for name in names[level]} <= _REAL_OR_FAKE]
    others = [level for level in range(depth) if level not in truth[:1]]
    if len(others) > 1:
        shown = " / ".join(_some(level) for level in names)
        raise DataError(
            f"layout: the directory levels {shown} could mean several things; name each, "
            "for example --layout='{split}/{generator}/{category}'"
        )
    return [f"{{{AUTHENTICITY if level in truth[:1] else CATEGORY}}}" for level in range(depth)]


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
