"""Work on a finished data folder: rebuilding damaged shards, and finding the images to append."""

import dataclasses
import io

import numpy as np

from tfrecords_tools.checking import audit
from tfrecords_tools.checking.damage import damaged_shards
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.listing.listing import Listing
from tfrecords_tools.writing import ownership, planning, rejection, shard, writer
from tfrecords_tools.writing.planning import Options, Plan

_AS_THEN = "use the same images and options as then, or convert into a new folder"
_DROPPED = "a duplicate across splits then, or added since: it is in no shard"


def fresh(listing: Listing, output_dir: str, base: Manifest) -> Listing:
    """The images whose keys no earlier conversion into this folder has seen."""
    target = storage.open_folder(output_dir)
    known = np.concatenate([_members(target, base, number) for number in range(len(base.generations))])
    return listing.only(~np.isin(listing.rows["order"], known))


def is_member(listing: Listing, output_dir: str, *, generation: int) -> np.ndarray:
    """[n] bool: whether an image is of the conversion of this number, counted from 0, into a folder."""
    manifest = manifests.load(output_dir, shards=False)
    return np.isin(listing.rows["order"], _members(storage.open_folder(output_dir), manifest, generation))


def repair(
    listing: Listing,
    options: Options,
    output_dir: str,
    *,
    processes: int,
    on_progress: shard.Progress = lambda images, size, rejected: None,
) -> tuple[Manifest, list[str]]:
    """Rebuilds whatever `audit` finds damaged, from the images that it was made of.

    Returns:
      The manifest and the names of the rebuilt files.

    Raises:
      DataError: the images or the options are not those that the folder was made with.
    """
    target = storage.open_folder(output_dir)
    manifest, damages = audit.audit(output_dir, processes=processes)
    if not damages:
        return manifest, []
    plans = _plans(listing, options, target, manifest)
    damaged = set(damaged_shards(manifest, damages))
    lock = target.lock()
    expected = {part.file: part for split in manifest.splits.values() for part in split.shards}
    for plan in plans:
        files = damaged & set(plan.files)
        jobs = (dataclasses.replace(job, sha256=expected[job.file].sha256) for job in plan.jobs(files))
        writer.run(plan, output_dir, jobs, min(processes, len(files)), on_progress)
    companions = _companions(target, plans, manifest, listing, {damage.file for damage in damages})
    manifest = writer.publish(target, manifest, companions)
    del lock
    return manifest, sorted({damage.file for damage in damages})


def _plans(listing: Listing, options: Options, target: Folder, manifest: Manifest) -> list[Plan]:
    """The plans of a folder's generations, again. Raises DataError where they are not the same."""
    plans, base = [], None
    for number, generation in enumerate(manifest.generations):
        if len(manifest.generations) == 1:
            chosen = listing
        else:
            chosen = listing.only(np.isin(listing.rows["order"], _members(target, manifest, number)))
        plan = planning.plan(chosen, options, base=base)
        require_same_options(target.root, manifest, chosen, options)
        existing = generation | {"axes": {axis: list(names) for axis, names in manifest.axes.items()}}
        wanted = {key: plan.description[key] for key in existing}
        ownership.require_same(target.root, existing, wanted, remedy=_AS_THEN)
        plans.append(plan)
        base = _upto(manifest, plans)
    return plans


def _upto(manifest: Manifest, plans: list[Plan]) -> Manifest:
    """A manifest as far as planning looks at it: how many shards each split has so far."""
    splits = {}
    for name, split in manifest.splits.items():
        count = sum(len(plan.shards.get(name, ())) for plan in plans)
        if count:
            splits[name] = manifests.Split(split.shards[:count], {})
    return manifests.Manifest(manifest.name, manifest.axes, splits, {}, {}, 0, {}, "")


def _companions(
    target: Folder, plans: list[Plan], manifest: Manifest, listing: Listing, damaged: set[str]
) -> dict[str, bytes]:
    """The files beside the shards, TFDS's metadata apart: made again where damaged.

    Args:
      listing: all images that are in the input folder now.
    """
    companions = {}
    for number, plan in enumerate(plans, 1):
        stream = io.BytesIO()
        np.save(stream, np.sort(plan.listing.rows["order"]), allow_pickle=False)
        companions[writer.members_file(number)] = stream.getvalue()
    if rejection.FILE_NAME not in damaged:
        companions[rejection.FILE_NAME] = target.read(rejection.FILE_NAME)
    else:
        table = b""
        for plan in plans:
            table = rejection.table(plan, _rejected_again(target, plan), table)
        companions[rejection.FILE_NAME] = table
    if rejection.SKIPPED_FILE not in manifest.files:
        return companions
    if rejection.SKIPPED_FILE not in damaged:
        companions[rejection.SKIPPED_FILE] = target.read(rejection.SKIPPED_FILE)
        return companions
    table = b""
    for plan in plans:
        table = rejection.skipped_table(plan, earlier=table)
    if len(plans) > 1 and plans[0].options.drop_duplicates != "none":
        known = np.concatenate([plan.listing.rows["order"] for plan in plans])
        rest = listing.only(~np.isin(listing.rows["order"], known))
        rows = [(records.key_text(rest.key(index)), _DROPPED) for index in range(len(rest))]
        table = rejection.skipped_table(plans[-1], rows, table)
    return companions | {rejection.SKIPPED_FILE: table}


def _rejected_again(target: Folder, plan: Plan) -> list[tuple[str, str]]:
    """Planned images that are in no shard, with the reasons found by checking them again."""
    context = shard.ShardContext.of(plan, target.root)
    rows = []
    for job in plan.jobs(set(plan.files)):
        stored_keys = set(records.read_keys(target.view(job.file, entire=True)))
        for key, size, _, place in job.images:
            if key not in stored_keys:
                checked = shard.fetch(context, key, size, place)
                rows.append((records.key_text(key), getattr(checked, "reason", "")))
    return rows


def _members(target: Folder, manifest: Manifest, generation: int) -> np.ndarray:
    name = writer.members_file(generation + 1)
    try:
        hashes = np.load(io.BytesIO(target.read(name)), allow_pickle=False)
        if hashes.dtype != np.uint64 or hashes.ndim != 1:
            raise ValueError(f"an array of {hashes.dtype} {hashes.shape}")
        return hashes
    except Exception as error:  # the header is parsed as Python, which raises SyntaxError, MemoryError, …
        raise DataError(
            f"{target.root}/{name}: unreadable ({error}); without it it is not known which images "
            "belong to which shards; restore it from a copy, or convert into a new folder"
        ) from error


def require_same_options(root: str, base: Manifest, listing: Listing, options: Options) -> None:
    """Raises DataError with what differs from the options that a folder was made with."""
    existing = {"name": base.name, **base.options}
    wanted = planning.describe_options(listing, options)
    ownership.require_same(
        root, existing, {key: wanted.get(key) for key in existing} | {"source": None}, _AS_THEN
    )
