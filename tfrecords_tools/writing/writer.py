"""A plan -> a complete data folder: shards by several processes, then the manifest.

What the bytes depend on: the input files, the options and the seed. Not on the number of
workers, nor on interruptions.

While a conversion is at work, its folder holds `.convert/`: `plan.json` (what is being
converted), unfinished files, and a report per published shard. The last acts are
manifest.json, which completes the folder, and the removal of `.convert/`.
"""

import collections
import dataclasses
import hashlib
import io
import re
import time
from collections.abc import Callable, Iterable

import numpy as np

from tfrecords_tools import workers
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import records, storage, tfds_metadata
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import ENDINGS, Manifest
from tfrecords_tools.writing import beam, ownership, rejection, shard, shard_report
from tfrecords_tools.writing.planning import Job, Plan

MAX_SIZES = 1_000  # image sizes listed in the manifest
_OF_MANIFEST = ("name", "axes", "shards", "source", "images", "appends_to")  # said elsewhere in it


@dataclasses.dataclass(frozen=True)
class Written:
    """A finished folder.

    Attributes:
      manifest: what it holds.
      seconds: that the writing took; 0.0 when all was there already.
      images: that were written in this time, by this run.
    """

    manifest: Manifest
    seconds: float
    images: int


def write(
    plan: Plan,
    output_dir: str,
    *,
    processes: int,
    max_rejected: float = 0.01,
    allow_missing_classes: bool = False,
    beam_options: str | None = None,
    on_progress: shard.Progress = lambda images, size, rejected: None,
    on_resume: Callable[[int, int], None] = lambda shards, images: None,
) -> Written:
    """Writes the shards of a plan and then the manifest; resumes where an earlier run was interrupted.

    Args:
      plan: the plan.
      output_dir: a new or empty folder, or one that an earlier run of the same plan left.
      processes: how many write shards at once.
      max_rejected: share of the images that may be rejected.
      allow_missing_classes: let rejection leave a split without a class, or without images.
      beam_options: None writes by local processes; else Apache Beam does, with these options.
      on_progress: called with (images, bytes, rejected) done by this run.
      on_resume: called with the (shards, images) that an earlier run has done.

    Raises:
      DataError: the folder holds something else; too many images are rejected; a worker died.
    """
    target = storage.open_folder(output_dir)
    manifest = finished(target, plan)
    if manifest is not None:
        return Written(manifest, 0.0, 0)
    start = time.monotonic()
    ownership.require_ours(target, plan)
    lock = target.lock()
    manifest = finished(target, plan)
    if manifest is not None:  # by the conversion that had the lock
        return Written(manifest, 0.0, 0)
    ownership.require_ours(target, plan)
    ownership.claim(target, plan)
    done = {
        file: report
        for file in plan.files
        if (report := shard_report.read(target, file, plan.sha256)) is not None
    }
    if done:
        images_done = sum(report["records"] + len(report["rejected"]) for report in done.values())
        on_resume(len(done), images_done)
    todo = set(plan.files) - set(done)
    if beam_options is None:
        run(plan, output_dir, plan.jobs(todo), min(processes, len(todo)), on_progress)
    elif todo:
        beam.run(plan, output_dir, plan.jobs(todo), beam_options, on_progress)
    reports = _all_reports(target, plan)
    rejection.require_few(plan, reports, max_rejected, target)
    if not allow_missing_classes:
        rejection.require_classes_left(plan, reports, target)
    manifest = _finish(target, plan, reports)
    del lock
    images = sum(report["records"] for file, report in zip(plan.files, reports, strict=True) if file in todo)
    return Written(manifest, time.monotonic() - start, images)


def run(
    plan: Plan, output_dir: str, jobs: Iterable[Job], processes: int, on_progress: shard.Progress
) -> None:
    """Writes shards by local processes.

    Raises:
      DataError: an image killed its worker twice, the input changed, the disk is full.
    """
    context = shard.ShardContext.of(plan, output_dir)
    pool = workers.WorkerPool(shard.write, context, workers=max(1, processes), on_tick=on_progress)
    try:
        for _ in pool.run(jobs):
            pass
    except workers.WorkerDied as death:
        key = death.job.images[min(death.done, len(death.job.images) - 1)][0]
        raise DataError(
            f"a worker died twice ({death.how}) at {plan.listing.root}/{records.key_shown(key)}; if memory "
            "was short use fewer --workers, else move that file away; the same command then resumes"
        ) from death


def finished(target: Folder, plan: Plan) -> Manifest | None:
    """The folder's manifest if this very plan is done there. Raises DataError if it holds another."""
    if target.size(manifests.FILE_NAME) is None:
        return None
    existing = manifests.load(target.root)
    if plan.base is not None and existing.source == plan.base.source:
        return None
    last = existing.generations[-1]
    description: dict[str, object] = {
        "name": existing.name,
        "axes": {axis: list(names) for axis, names in existing.axes.items()},
    }
    description |= {**existing.options, **last, "appends_to": plan.description["appends_to"]}
    ownership.require_same(target.root, description, plan.description)
    _clear(target, existing)  # in case it was killed after its last act but one
    return existing


def _all_reports(target: Folder, plan: Plan) -> list[dict]:
    """The reports of all shards. Raises DataError when one was removed meanwhile."""
    reports = {file: shard_report.read(target, file, plan.sha256) for file in plan.files}
    for file, report in reports.items():
        if report is None:
            raise DataError(
                f"{target.root}: {file} or its report was removed or changed during the conversion; "
                "run the same command again"
            )
    return [report for report in reports.values() if report is not None]


def _finish(target: Folder, plan: Plan, reports: list[dict]) -> Manifest:
    """Adds the written shards to what was there, and publishes the result."""
    base, listing = plan.base, plan.listing
    splits = dict(base.splits) if base else {}
    for split in plan.shards:
        of_split = [report for report in reports if report["split"] == split]
        shards = tuple(
            manifests.Shard(*(report[key] for key in ("file", "records", "bytes", "sha256")))
            for report in of_split
        )
        before = splits.get(split, manifests.Split((), {}))
        cells = _sum([{"cells": before.cells}, *of_split], "cells")
        splits[split] = manifests.Split(before.shards + shards, cells)
    earlier = [dataclasses.asdict(base)] if base else []
    rows = [row for report in reports for row in report["rejected"]]
    rejected = rejection.table(plan, rows, target.read(rejection.FILE_NAME) if base else b"")
    # Folders of version 0.1.0 have one list for both.
    has_skipped = base is not None and rejection.SKIPPED_FILE in base.files
    earlier_skipped = target.read(rejection.SKIPPED_FILE) if has_skipped else b""
    skipped = rejection.skipped_table(plan, earlier=earlier_skipped)
    new = manifests.Generation(
        source=plan.description["source"],
        images=plan.description["images"],
        shards=plan.description["shards"],
    )
    generations = (*(base.generations if base else ()), new)
    sources = [generation["source"] for generation in generations]
    manifest = Manifest(
        name=plan.options.name,
        axes=listing.axes,
        splits=dict(sorted(splits.items())),
        image_sizes=_few(_sum([*earlier, *reports], "image_sizes")),
        encodings=_sum([*earlier, *reports], "encodings"),
        rejected=rejection.count(rejected),
        skipped=rejection.count(skipped),
        options={key: value for key, value in plan.description.items() if key not in _OF_MANIFEST},
        source=sources[0] if len(sources) == 1 else hashlib.sha256("".join(sources).encode()).hexdigest(),
        reencoded=_sum([*earlier, *reports], "reencoded"),
        generations=generations,
    )
    stream = io.BytesIO()
    np.save(stream, np.sort(listing.rows["order"]), allow_pickle=False)
    companions = {
        rejection.FILE_NAME: rejected,
        rejection.SKIPPED_FILE: skipped,
        members_file(len(generations)): stream.getvalue(),
    }
    for number in range(1, len(generations)):
        companions[members_file(number)] = target.read(members_file(number))
    return publish(target, manifest, companions)


def members_file(generation: int) -> str:
    """The file of a generation's images: their order hashes, sorted uint64."""
    return f"images-{generation:05d}.npy"


def publish(target: Folder, manifest: Manifest, companions: dict[str, bytes]) -> Manifest:
    """Publishes what lies beside the shards, TFDS's metadata too, then the manifest, and clears up."""
    companions = companions | tfds_metadata.files(manifest)
    for alias, name in tfds_metadata.aliases(manifest).items():
        target.alias(name, alias)
    for name, data in companions.items():
        target.write(name, data)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(companions.items())}
    manifest = dataclasses.replace(manifest, files=sums)
    target.write(manifests.FILE_NAME, manifests.dumps(manifest))
    _clear(target, manifest)
    return manifest


def _clear(target: Folder, manifest: Manifest) -> None:
    """Removes what only the work needed: `.convert/`, and shard names of earlier generations' counts."""
    pattern = re.compile(rf"{manifest.name}-\w+\.tfrecord-\d{{5}}-of-\d{{5}}(\.idx|\.npy)?")
    known = set(tfds_metadata.aliases(manifest))
    for split in manifest.splits.values():
        known |= {part.file + ending for part in split.shards for ending in ENDINGS}
    for name in target.names():
        if pattern.fullmatch(name) and name not in known:
            target.remove(name)
    target.clear_work()


def _sum(reports: list[dict], key: str) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for report in reports:
        total.update(report[key])
    return dict(sorted(total.items()))


def _few(sizes: dict[str, int]) -> dict[str, int]:
    """The most frequent image sizes, the rest as "other"."""
    ordered = sorted(sizes.items(), key=lambda pair: (pair[0] == "other", -pair[1], pair[0]))
    few = dict(ordered[:MAX_SIZES])
    rest = sum(count for _, count in ordered[MAX_SIZES:])
    return few | ({"other": rest} if rest else {})
