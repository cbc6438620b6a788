"""Which conversion a data folder belongs to: `.convert/plan.json` says so until the manifest does."""

import contextlib
import json
import shlex
from typing import Any

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents, storage
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format.folder import WORK, Folder
from tfrecords_tools.writing.planning import Plan

PLAN_FILE = f"{WORK}/plan.json"
_FLAGS = (
    "name",
    "encoding",
    "image_size",
    "fit",
    "quality",
    "shard_mb",
    "num_shards",
    "seed",
    "split",
    "group",
)


def require_same(root: str, existing: dict, wanted: dict, remedy: str = "", *, discard: str = "") -> None:
    """Raises DataError with what differs between two descriptions, and the remedy.

    Args:
      root: the folder.
      existing: the description of what it holds.
      wanted: that of what is to be written there.
      remedy: what to do, whatever differs.
      discard: how to give up what it holds, if that is unfinished.
    """
    differing = [
        key for key in wanted if key not in ("source", "images") and existing.get(key) != wanted[key]
    ]
    differences = [
        f"{key} ({json.dumps(existing.get(key))} there, {json.dumps(wanted[key])} now)" for key in differing
    ]
    flags = [
        f"--{key}={shlex.quote(str(existing[key]))}"
        for key in differing
        if existing.get(key) not in (None, "")
    ]
    usual_remedy = discard or "choose another --output_dir, or delete this one"
    if flags and set(differing) <= set(_FLAGS):
        usual_remedy = f"pass {' '.join(flags)} to continue it, {usual_remedy}"
    other_input = wanted["source"] is not None and existing.get("source") != wanted["source"]
    if other_input and (not differences or "shards" in differing):
        counts = f"{existing.get('images')} images then, {wanted['images']} now"
        differences.insert(0, f"the input's files, sizes or labels ({counts})")
        usual_remedy += "" if discard else "; --append adds images that are new"
    if differences:
        raise DataError(
            f"{root}: holds another conversion, which differs in {'; '.join(differences)}; "
            f"{remedy or usual_remedy}"
        )


def require_new_or_ours(output_dir: str) -> None:
    """Raises DataError unless the folder is new, empty, or holds a conversion, finished or not."""
    target = storage.open_folder(output_dir)
    if target.size(manifests.FILE_NAME) is None and target.size(PLAN_FILE) is None:
        _require_empty(target)


def _require_empty(target: Folder) -> None:
    names = [name for name in target.names() if name != WORK]
    if names:
        raise DataError(
            f"{target.root}: is not empty (it holds {names[0]!r}) and no unfinished conversion; "
            "choose a new or empty --output_dir"
        )


def plan_version(output_dir: str) -> int | None:
    """The version of the rules by which a folder was converted, or is being; None for a new folder."""
    target = storage.open_folder(output_dir)
    if target.size(manifests.FILE_NAME) is not None:
        options: dict[str, Any] = manifests.load(output_dir, shards=False).options
    elif target.size(PLAN_FILE) is not None:
        options = _begun(target)
    else:
        return None
    return int(str(options.get("plan_version", 1)))


def require_ours(target: Folder, plan: Plan) -> None:
    """Raises DataError unless the folder is new, empty, or left by a run of this plan."""
    try:
        existing = _begun(target)
    except FileNotFoundError:
        if plan.base is None:
            _require_empty(target)
        return
    unfinished = target.root if plan.base is None else f"{target.root}/{WORK}"
    discard = f"choose another --output_dir, or delete {unfinished}, which holds the unfinished one"
    require_same(target.root, existing, plan.description, discard=discard)


def claim(target: Folder, plan: Plan) -> None:
    """Writes plan.json: from now on the folder is this plan's.

    Raises:
      DataError: it is another plan's, whose conversion began at the same moment.
    """
    target.create(PLAN_FILE, json.dumps(plan.description, indent=1).encode())
    with contextlib.suppress(FileNotFoundError):  # a conversion of this plan has just been finished
        require_same(target.root, _begun(target), plan.description)


def _begun(target: Folder) -> dict[str, Any]:
    """The description of the plan that a run began to carry out. Raises DataError when it is unreadable."""
    try:
        return documents.read(target.read(PLAN_FILE, limit=documents.MAX_BYTES), dict[str, Any])
    except ValueError as error:
        raise DataError(f"{target.root}/{PLAN_FILE}: unreadable ({error}); delete --output_dir") from error
