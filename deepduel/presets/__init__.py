"""Flagfiles: the presets that come with the package, by name, and the train.flags of runs.

--flagfile=NAME                 a preset, where NAME is no file's path
--flagfile=RUN/train.flags      the run in whose folder the file lies, wherever it was begun
"""

import pathlib
from collections.abc import Sequence

_FOLDER = pathlib.Path(__file__).parent
_RUN_FLAGS = "train.flags"


def names() -> list[str]:
    """The presets, such as "artifact_original"."""
    return sorted(path.stem for path in _FOLDER.glob("*.flags"))


def resolve(argv: Sequence[str]) -> list[str]:
    """Replaces a preset's name after --flagfile by the path of its file; a file of that name comes first.

    After the train.flags of a run's folder --workdir is added: the file names the folder in which the run was
    begun, and that may have been moved since. A --workdir among the words, before or after it, comes before
    that of the file, so that the flags of the file begin a run there.
    """
    words, workdir = [], _workdir(argv)
    after_flag = False
    for word in argv:
        equals = _flag(word) == "flagfile" and "=" in word
        value = word.partition("=")[2] if equals else word
        if not equals and not after_flag:
            words.append(word)
        else:
            path = _path(value)
            words.append(f"--flagfile={path}" if equals else path)
            if _is_run(pathlib.Path(path)):
                words.append(f"--workdir={workdir or pathlib.Path(path).parent}")
        after_flag = _flag(word) == "flagfile" and not equals
    return words


def _workdir(argv: Sequence[str]) -> str | None:
    """The value of the last --workdir, if there is one."""
    value = None
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if _flag(word) == "workdir":
            value = word.partition("=")[2] if "=" in word else following
    return value


def _flag(word: str) -> str:
    """The name in --name or --name=value; "" for other words."""
    return word.partition("=")[0].lstrip("-") if word.startswith("-") else ""


def _path(value: str) -> str:
    preset = _FOLDER / f"{value}.flags"
    return str(preset) if value in names() and not pathlib.Path(value).is_file() else value


def _is_run(path: pathlib.Path) -> bool:
    """Whether a run wrote the file: beside it lies what a run writes, or nothing yet."""
    if path.name != _RUN_FLAGS or not path.is_file():
        return False
    others = [other.name for other in path.parent.iterdir() if not other.name.startswith(".")]
    return "run.json" in others or others == [_RUN_FLAGS]
