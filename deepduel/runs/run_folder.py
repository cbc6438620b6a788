"""The folder of a run: whose it is, and whether a command may go on in it."""

import pathlib
import re

from deepduel.networks.run_card import RunCard
from tfrecords_tools.errors import DataError

# Flags that a run may go on with another value of: its length, where things lie, how often it saves.
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
      flags: the flagfile of now.
      defaults: the flagfile of defaults; a flag that the run's own file does not name, because it was
        begun by an earlier version, had its default.
    """
    path = workdir / "train.flags"
    if path.exists():
        known = _settings(defaults) | _settings(path.read_text("utf-8"))
        asked = _settings(defaults) | _settings(flags)
        # A file of an earlier version may lack the comments that say what the augmentation is.
        names = [name for name in sorted(known | asked) if name in known or not name.startswith("#")]
        differing = [name for name in names if known.get(name) != asked.get(name)]
        if differing:
            lines = [line for name in differing for side in (known, asked) for line in side.get(name, ())]
            raise DataError(
                f"{workdir} holds a run of other settings ({'; '.join(lines)}); "
                "give another --workdir, or the flags of its train.flags"
            )
    elif workdir.exists() and any(not path.name.startswith(".") for path in workdir.iterdir()):
        raise DataError(f"{workdir}: is not empty and holds no run (no train.flags); give another --workdir")


def write_flags(workdir: pathlib.Path, flags: str) -> None:
    """Makes the folder, and keeps the first session's flags in it."""
    path = workdir / "train.flags"
    if path.exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(".train.flags.partial")
    partial.write_text(flags, "utf-8")
    partial.replace(path)


def keep_card(card: RunCard, workdir: pathlib.Path) -> None:
    """Writes run.json, or checks that the run was begun on the same data."""
    if (workdir / "run.json").exists():
        known = RunCard.load(workdir)
        if known.data_source != card.data_source:
            raise DataError(
                f"{workdir} holds a run on other data ({known.data_name}, source {known.data_source[:12]}; "
                f"now {card.data_name}, source {card.data_source[:12]}); give another --workdir"
            )
        return
    card.save(workdir)


def _settings(text: str) -> dict[str, list[str]]:
    """{flag: its lines, in order} of a flagfile, but for flags that may change.

    And {"# augmentation of TASK": its line}, which says what the preset meant when the run was begun.
    """
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = re.match(r"--(\w+)=|(# augmentation of [^:]+):", line.strip())
        if match and match[1] == "cache":  # where it lies may change, but features are other images
            found["cache"] = [re.sub(r"=features:.*", "=features", line.strip())] * ("=features" in line)
        elif match and match[1] not in _MAY_CHANGE:
            found.setdefault(match[1] or match[2], []).append(line.strip())
    return found
