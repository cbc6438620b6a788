"""The folder of a run: which run it belongs to, and whether a command may resume it."""

import pathlib
import re

from deepduel.networks.run_card import RunCard
from tfrecords_tools import regular_files
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError

_MOST_BYTES = 1 << 20  # of train.flags
# Flags that may have another value when a run is resumed: its length, folders, how often it saves.
_MAY_CHANGE = {
    "epochs",
    "data_dir",
    "workdir",
    "threads",
    "save_every",
    "max_minutes",
    "profile_steps",
    "devices",
    "dry_run",
}


def check(workdir: pathlib.Path, flags: str, defaults: str = "") -> None:
    """Raises DataError unless the folder is new, empty, or holds a run of the same flags.

    Args:
      flags: the flagfile of this command.
      defaults: the flagfile of all defaults: a flag that the run's own file does not name, because an earlier
        version began the run, had its default.
    """
    path = workdir / "train.flags"
    if path.exists():
        try:
            text = regular_files.read_text(path, limit=_MOST_BYTES)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: unreadable ({error}); give another --workdir") from error
        stored = _settings(defaults) | _settings(text)
        given = _settings(defaults) | _settings(flags)
        # A file of an earlier version may lack the comments with the augmentation's parameters.
        names = [name for name in sorted(stored | given) if name in stored or not name.startswith("#")]
        differing = [name for name in names if stored.get(name) != given.get(name)]
        if differing:
            lines = [line for name in differing for side in (stored, given) for line in side.get(name, ())]
            raise DataError(
                f"{workdir} holds a run with other settings ({'; '.join(lines)}); "
                f"give another --workdir, or resume it with --flagfile={path}"
            )
    elif workdir.exists() and any(not path.name.startswith(".") for path in workdir.iterdir()):
        raise DataError(f"{workdir} is not empty and holds no run (no train.flags); give another --workdir")


def write_flags(workdir: pathlib.Path, flags: str) -> None:
    """Creates the folder, and stores the first session's flags in it."""
    path = workdir / "train.flags"
    if path.exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with published(path) as file:
        file.write(flags)


def keep_card(card: RunCard, workdir: pathlib.Path) -> None:
    """Writes run.json, or checks that the run was begun on the same data."""
    if (workdir / "run.json").exists():
        stored = RunCard.load(workdir)
        if stored.data_source != card.data_source:
            raise DataError(
                f"{workdir} holds a run on other data ({stored.data_name}, source {stored.data_source[:12]}; "
                f"now {card.data_name}, source {card.data_source[:12]}); give another --workdir"
            )
        return
    card.save(workdir)


def _settings(text: str) -> dict[str, list[str]]:
    """{flag: its lines, in order} of a flagfile, without the flags that may change.

    And {"# augmentation of TASK": its line}, the preset's parameters when the run was begun.
    """
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = re.match(r"--(\w+)=|(# augmentation of [^:]+):", line.strip())
        if match and match[1] == "cache":  # its folder may change, but features show other images
            settings["cache"] = [re.sub(r"=features:.*", "=features", line.strip())] * ("=features" in line)
        elif match and match[1] not in _MAY_CHANGE:
            settings.setdefault(match[1] or match[2], []).append(line.strip())
    return settings
