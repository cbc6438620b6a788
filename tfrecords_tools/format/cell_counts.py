"""Images per combination of labels as lines for people: all of a few; of many the largest and smallest."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

MANY = 20  # more combinations than these are summarised
_ENDS = 5


def shown(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """(what, how many) per line, in the order of the mapping where all are shown.

    Args:
      counts: images per combination, by the names of `manifest.cell_name`.
    """
    if len(counts) <= MANY:
        yield from ((_readable(name), f"{count:,}") for name, count in counts.items())
        return
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for name, count in ordered[:_ENDS]:
        yield _readable(name), f"{count:,}"
    median = statistics.median(counts.values())
    yield f"… {len(counts) - 2 * _ENDS:,} more of {len(counts):,}", f"{median:,g} in the median"
    for name, count in ordered[-_ENDS:]:
        yield _readable(name), f"{count:,}"


def names_line(names: Sequence[str]) -> str:
    """The names of an axis with their numbers, on one line."""
    numbered = [f"{number} {name}" for number, name in enumerate(names)]
    if len(numbered) <= MANY:
        return ", ".join(numbered)
    return f"{', '.join(numbered[:_ENDS])}, … {', '.join(numbered[-_ENDS:])}"


def _readable(name: str) -> str:
    return name if name.strip("?/") else "without labels"
