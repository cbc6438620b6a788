"""Flagfiles that come with the package: `deepduel.train --flagfile=NAME` where NAME is no file's path."""

import pathlib
from collections.abc import Sequence

_FOLDER = pathlib.Path(__file__).parent
_FLAG = "--flagfile"


def names() -> list[str]:
    """The presets, such as "artifact_original"."""
    return sorted(path.stem for path in _FOLDER.glob("*.flags"))


def resolve(argv: Sequence[str]) -> list[str]:
    """Replaces a preset's name after --flagfile by the path of its file; a file of that name comes first."""
    words = list(argv)
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag.replace("--", "-") != "-flagfile":
            continue
        if equals:
            words[index] = f"{_FLAG}={_path(value)}"
        elif index + 1 < len(words):
            words[index + 1] = _path(words[index + 1])
    return words


def _path(value: str) -> str:
    preset = _FOLDER / f"{value}.flags"
    return str(preset) if value in names() and not pathlib.Path(value).is_file() else value
