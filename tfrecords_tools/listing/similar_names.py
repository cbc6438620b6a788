"""Class names that are probably one: they differ in case, spaces, hyphens or Unicode form alone."""

import collections
import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence

_DIFFER = "differ only in case, spaces, hyphens or Unicode form"


def warnings(axis: str, names: Sequence[str]) -> Iterator[str]:
    """A line for each group of similar names."""
    for group in groups(names):
        yield (
            f"warning: {axis} has {' and '.join(map(repr, group))}, which {_DIFFER}; if they are one class: "
            f"{_merge(group)}"
        )


def remedy(name: str, names: Sequence[str]) -> str:
    """What helps where a name has no images and a similar one may have them; "" if there is none."""
    for group in groups(names):
        if name in group:
            return f"{' and '.join(map(repr, group))} {_DIFFER}, so make them one class with {_merge(group)}"
    return ""


def groups(names: Sequence[str]) -> Iterator[list[str]]:
    """The names that are similar to another one, group by group."""
    alike = collections.defaultdict(list)
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        alike[re.sub(r"[\s_-]+", " ", plain).strip()].append(name)
    return (group for group in alike.values() if len(group) > 1)


def _merge(group: Sequence[str]) -> str:
    return shlex.quote(f"--merge={','.join(group[1:])}:{group[0]}")
