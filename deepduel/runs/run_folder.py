"""The folder of a run: which run it belongs to, who trains in it, and whether a command may resume it.

RUN/train.flags   the flags of the newest session
RUN/changes.csv   which flags a later session changed, and at which step
RUN/.lock         held while a command trains; RUN/.trained_by.json says which one
"""

import contextlib
import csv
import datetime
import json
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator

import filelock

from deepduel.networks.run_card import RunCard
from deepduel.runs import settings
from deepduel.runs.settings import Change
from tfrecords_tools import regular_files
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.progress import counted

FLAGS_NAME = "train.flags"
SEARCH_FOLDER = "find_learning_rate"  # may lie there before the run, see rate_search
_MOST_BYTES = 1 << 20  # of train.flags
_LOCK, _OWNER, _CHANGES = ".lock", ".trained_by.json", "changes.csv"


def check(workdir: pathlib.Path, flags: str, defaults: str, axes: list[str]) -> list[Change]:
    """Compares the flags of this command with those of the run in the folder.

    Args:
      workdir: the folder; new, empty, or of a run.
      flags: the flagfile of this command.
      defaults: the flagfile of all defaults, for folders that an earlier version began.
      axes: label axes of the tasks.

    Returns:
      The flags that changed since the run's newest session; where the folder lies is none of them.

    Raises:
      DataError: the folder holds a run whose result other flags decide, or things that are no run.
    """
    path = workdir / FLAGS_NAME
    if not path.exists():
        names = [path.name for path in workdir.iterdir()] if workdir.exists() else []
        if any(not name.startswith(".") and name != SEARCH_FOLDER for name in names):
            raise DataError(
                f"{workdir} is not empty and holds no run (no {FLAGS_NAME}); give another --workdir"
            )
        return []
    try:
        stored = regular_files.read_text(path, limit=_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: unreadable ({error}); give another --workdir") from error
    changes = settings.changes(stored, flags, defaults, axes)
    refused = [change for change in changes if not settings.may_change(change)]
    if refused:
        raise DataError(
            f"{workdir} holds a run with other settings ({'; '.join(map(str, refused))}); "
            f"give another --workdir, or resume it with --flagfile={path}"
        )
    return [change for change in changes if change.flag not in ("workdir", "dry_run")]


def write_flags(workdir: pathlib.Path, flags: str) -> None:
    """Creates the folder, and stores the flags of this session in it."""
    workdir.mkdir(parents=True, exist_ok=True)
    with published(workdir / FLAGS_NAME) as file:
        file.write(flags)


def record(workdir: pathlib.Path, changes: list[Change], *, epoch: int, step: int) -> None:
    """Adds lines to changes.csv: the flags that this session changes, and from which step on."""
    path = workdir / _CHANGES
    earlier = regular_files.read_text(path) if path.exists() else "time,epoch,step,flag,before,after\n"
    if not changes:
        return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with published(path) as file:
        file.write(earlier)
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows((now, epoch, step, *change) for change in changes)


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """A block during which no other command trains in the folder. The lock falls with the process.

    Raises:
      DataError: another one trains there; says which one, and since when.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(workdir / _LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        raise DataError(
            f"{workdir}: {_owner(workdir)} trains here; wait for it, stop it, or give another --workdir"
        ) from None
    except PermissionError:
        raise
    except (OSError, NotImplementedError):
        yield  # a file system without locks
        return
    try:
        with published(workdir / _OWNER) as file:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            json.dump({"process": os.getpid(), "host": platform.node(), "since": now}, file)
        yield
    finally:
        (workdir / _OWNER).unlink(missing_ok=True)
        if {path.name for path in workdir.iterdir()} == {_LOCK}:  # nothing was begun
            shutil.rmtree(workdir)
        lock.release()


def _owner(workdir: pathlib.Path) -> str:
    try:
        owner = documents.parse(regular_files.read(workdir / _OWNER, limit=1 << 12))
        return f"process {int(owner['process'])} on {owner['host']!s:.64}, since {owner['since']!s:.32},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def keep_card(card: RunCard, workdir: pathlib.Path, manifest: Manifest) -> None:
    """Writes run.json, or checks that the run was begun on the same data.

    Raises:
      DataError: the run was begun on other images, on fewer, or on the same with other pixels.
    """
    if not (workdir / "run.json").exists():
        card.save(workdir)
        return
    stored = RunCard.load(workdir)
    if stored.data_sha256 in ("", card.data_sha256) and stored.data_source == card.data_source:
        return
    if stored.data_sha256 and stored.data_sha256 == card.data_sha256:
        return  # only splits that the run does not read have changed
    earlier = [generation["source"] for generation in manifest.generations]
    if stored.data_source == card.data_source:
        what = f"the same images of {card.data_name}, {_converted(stored, card)}"
    elif stored.data_source in earlier:
        later = manifest.generations[earlier.index(stored.data_source) + 1 :]
        images = counted(sum(generation["images"] for generation in later), "image")
        what = f"{card.data_name} without the {images} appended since then"
    else:
        what = (
            f"other data ({stored.data_name}, source {stored.data_source[:12]}; now {card.data_name}, source "
            f"{card.data_source[:12]})"
        )
    raise DataError(
        f"{workdir} holds a run on {what}; give another --workdir, with --start_from={workdir} to begin from "
        "its models, or name the shards that it was begun on with --data_dir"
    )


def _converted(stored: RunCard, card: RunCard) -> str:
    """How the conversion of the same images differs from that on which a run was begun."""
    if not stored.data_options:  # a run of an earlier version
        return "which have been converted again since, to other shards"
    before, after = stored.data_options, card.data_options
    names = [name for name in before | after if name != "plan_version"]
    changes = [
        Change(name, *(f"--{name}={options[name]}" if name in options else "" for options in (before, after)))
        for name in names
        if before.get(name) != after.get(name)
    ]
    if changes:
        return f"which have been converted with other options since ({'; '.join(map(str, changes))})"
    return (
        "which have been converted again with the same options to other shards (the files have changed, or "
        "another version of the image libraries wrote them)"
    )
