"""What is done to a finished data folder: damaged shards rebuilt, new images appended."""

import dataclasses
import io

import numpy as np

from tfrecords_tools.checking import audit
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest, records, storage
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.writing import planning, rejection, shard, writer
from tfrecords_tools.writing.planning import Options, Plan

_AS_THEN = "bring back the images and options of then, or convert into a new folder"
_DROPPED = "a duplicate across splits then, or added since: it is in no shard"


def fresh(listing: Listing, output_dir: str, base: Manifest) -> Listing:
    """The images that no conversion into this folder knew of, by their keys."""
    target = storage.open_folder(output_dir)
    held = np.concatenate([_members(target, base, number) for number in range(len(base.generations))])
    return listing.only(~np.isin(listing.rows["order"], held))


def repair(
    listing: Listing,
    options: Options,
    output_dir: str,
    *,
    processes: int,
    on_progress: shard.Progress = lambda images, size, rejected: None,
) -> tuple[Manifest, list[str]]:
    """Rebuilds whatever `audit` finds damaged, from the images it was made of.

    Returns:
      The manifest and the names of the rebuilt files.

    Raises:
      DataError: the images or the options are not those that the folder was made with.
    """
    target = storage.open_folder(output_dir)
    whole, damages = audit.audit(output_dir, processes=processes)
    if not damages:
        return whole, []
    plans = _plans(listing, options, target, whole)
    damaged = set(audit.damaged_shards(whole, damages))
    lock = target.lock()
    expected = {part.file: part for split in whole.splits.values() for part in split.shards}
    for made in plans:
        own = damaged & set(made.files)
        jobs = (dataclasses.replace(job, sha256=expected[job.file].sha256) for job in made.jobs(own))
        writer.run(made, output_dir, jobs, min(processes, len(own)), on_progress)
    companions = _companions(target, plans, whole, listing, {damage.file for damage in damages})
    whole = writer.publish(target, whole, companions)
    del lock
    return whole, sorted({damage.file for damage in damages})


def _plans(listing: Listing, options: Options, target: Folder, whole: Manifest) -> list[Plan]:
    """The plans of a folder's generations, again. Raises DataError where they are not the same."""
    plans, base = [], None
    for number, generation in enumerate(whole.generations):
        if len(whole.generations) == 1:
            chosen = listing
        else:
            chosen = listing.only(np.isin(listing.rows["order"], _members(target, whole, number)))
        made = planning.plan(chosen, options, base=base)
        require_same_options(target.root, whole, chosen, options)
        found = generation | {"axes": {axis: list(names) for axis, names in whole.axes.items()}}
        wanted = {key: made.description[key] for key in found}
        writer.require_same(target.root, found, wanted, remedy=_AS_THEN)
        plans.append(made)
        base = _upto(whole, plans)
    return plans


def _upto(whole: Manifest, plans: list[Plan]) -> Manifest:
    """A manifest as far as planning looks at it: how many shards each split has so far."""
    splits = {}
    for name, split in whole.splits.items():
        count = sum(len(made.shards.get(name, ())) for made in plans)
        if count:
            splits[name] = manifest.Split(split.shards[:count], {})
    return manifest.Manifest(whole.name, whole.axes, splits, {}, {}, 0, {}, "")


def _companions(
    target: Folder, plans: list[Plan], whole: Manifest, listing: Listing, damaged: set[str]
) -> dict[str, bytes]:
    """The files beside the shards, TFDS's metadata apart: made again where damaged.

    Args:
      listing: all images that are in the input folder now.
    """
    companions = {}
    for number, made in enumerate(plans, 1):
        stream = io.BytesIO()
        np.save(stream, np.sort(made.listing.rows["order"]), allow_pickle=False)
        companions[writer.members_file(number)] = stream.getvalue()
    if rejection.FILE_NAME not in damaged:
        companions[rejection.FILE_NAME] = target.read(rejection.FILE_NAME)
        return companions
    table = b""
    for made in plans:
        table = rejection.table(made, _rejected_again(target, made), table)
    if len(plans) > 1 and plans[0].options.drop_duplicates != "none":
        known = np.concatenate([made.listing.rows["order"] for made in plans])
        rest = listing.only(~np.isin(listing.rows["order"], known))
        rows = [(records.key_text(rest.key(index)), _DROPPED) for index in range(len(rest))]
        table = rejection.table(plans[-1], rows, table)
    return companions | {rejection.FILE_NAME: table}


def _rejected_again(target: Folder, made: Plan) -> list[tuple[str, str]]:
    """Planned images that are in no shard, with the reasons found by checking them again."""
    source = storage.open_folder(made.listing.root)
    common = shard.ShardContext(made.listing.root, target.root, made.listing.axes, made.options.recipe)
    rows = []
    for job in made.jobs(set(made.files)):
        held = set(records.read_keys(target.view(job.file)))
        for key, size, _ in job.images:
            if key not in held:
                checked = shard.fetch(source, key, size, common)
                rows.append((records.key_text(key), getattr(checked, "reason", "")))
    return rows


def _members(target: Folder, whole: Manifest, generation: int) -> np.ndarray:
    name = writer.members_file(generation + 1)
    try:
        hashes = np.load(io.BytesIO(target.read(name)), allow_pickle=False)
        if hashes.dtype != np.uint64 or hashes.ndim != 1:
            raise ValueError(f"an array of {hashes.dtype} {hashes.shape}")
        return hashes
    except Exception as error:  # the header is parsed as Python, which raises SyntaxError, MemoryError, …
        raise DataError(
            f"{target.root}/{name}: unreadable ({error}); without it nobody can tell which images "
            "belong to which shards; copy it again, or convert into a new folder"
        ) from error


def require_same_options(root: str, held: Manifest, listing: Listing, options: Options) -> None:
    """Raises DataError with what differs from the options that a folder was made with."""
    found = {"name": held.name, **held.options}
    wanted = planning.describe_options(listing, options)
    writer.require_same(root, found, {key: wanted.get(key) for key in found} | {"source": None}, _AS_THEN)
