"""A listing -> shards on disk: `NAME-SPLIT.tfrecord-00000-of-00008`, `.idx`, `.npy`, then the manifest.

What a shard's bytes depend on: the input files, the options and the seed. Not on the number of
workers, nor on interruptions: `plan` fixes which image goes where, from keys and file sizes
alone; `write_shard` makes one shard of it, wherever it runs.

While a conversion is at work, its folder holds `.convert/`: `plan.json` (what is being
converted), unfinished files, and a report per published shard. The last acts are
manifest.json, which makes the folder whole, and the removal of `.convert/`.
"""

import collections
import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator

import numpy as np

from tfrecords_tools import image, manifest, records, storage, tfds_metadata, workers
from tfrecords_tools.cli import DataError, UsageError
from tfrecords_tools.folder import Listing
from tfrecords_tools.image import Recipe

WORK = ".convert"
PLAN_FILE = f"{WORK}/plan.json"
LOCK_FILE = f"{WORK}/lock"
REJECTED_FILE = "rejected.csv"
PLAN_VERSION = 1
MANY_SHARDS = 8  # of a split, when it has images enough: so that several processes have work
IMAGES_PER_SHARD = 256  # at least, before a small split is cut into several shards
MAX_SIZES = 1_000  # image sizes listed in the manifest
ENDINGS = ("", ".idx", ".npy")


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the shards' bytes, besides the input.

    Attributes:
      name: of the data set, the beginning of each file's name.
      recipe: how images are stored.
      shard_mb: a shard's size at most, in 10**6 bytes, as planned from the files' sizes.
      num_shards: shards per split; 0 leaves it to `shard_mb`.
      seed: of the order of images.
    """

    name: str
    recipe: Recipe = image.KEEP
    shard_mb: int = 128
    num_shards: int = 0
    seed: int = 0

    def __post_init__(self):
        if not self.name.isidentifier() or not self.name.isascii():
            raise UsageError(
                f"--name is letters, digits and _, not beginning with a digit, not {self.name!r}"
            )
        if not 1 <= self.shard_mb <= 100_000:
            raise UsageError(f"--shard_mb is 1 to 100,000 megabytes, not {self.shard_mb}")
        if not 0 <= self.num_shards <= 99_999:
            raise UsageError(f"--num_shards is 1 to 99,999, or 0 to follow --shard_mb, not {self.num_shards}")
        if not -(2**63) <= self.seed < 2**63:
            raise UsageError(f"--seed must fit 64 bits, not {self.seed}")


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to be written.

    Attributes:
      file: the shard's name.
      split: its split.
      images: (key, bytes on disk, labels in the order of axes), in the order of records.
    """

    file: str
    split: str
    images: list[tuple[bytes, int, tuple[int, ...]]]


@dataclasses.dataclass(frozen=True)
class Common:
    """What all shards of a conversion share. Picklable."""

    input_dir: str
    output_dir: str
    axes: dict[str, tuple[str, ...]]
    recipe: Recipe


@dataclasses.dataclass
class Plan:
    """Which image goes into which shard.

    Attributes:
      listing: the images.
      options: of the conversion.
      description: options and source as data, to compare runs by.
      shards: per split, file names and the bounds of each in `order`.
      order: per split, indices into the listing.
    """

    listing: Listing
    options: Options
    description: dict
    shards: dict[str, list[tuple[str, int, int]]]
    order: dict[str, np.ndarray]

    def jobs(self, files: set[str]) -> Iterator[Job]:
        """The jobs of these shards, longest first (a stable order), made as they are asked for."""
        chosen = [
            (split, *shard) for split, shards in self.shards.items() for shard in shards if shard[0] in files
        ]
        for split, file, start, end in sorted(chosen, key=lambda shard: shard[2] - shard[3]):
            yield self.job(split, file, start, end)

    def job(self, split: str, file: str, start: int, end: int) -> Job:
        listing, chosen = self.listing, self.order[split][start:end]
        sizes = listing.rows["size"][chosen].tolist()
        labels = map(tuple, listing.labels[chosen].tolist())
        keys = [listing.key(index) for index in chosen]
        return Job(file, split, list(zip(keys, sizes, labels, strict=True)))

    @property
    def files(self) -> list[str]:
        return [file for shards in self.shards.values() for file, _, _ in shards]


def plan(listing: Listing, options: Options) -> Plan:
    """Fixes the shards of a conversion."""
    shards, order = {}, {}
    for number, split in enumerate(listing.splits):
        chosen = np.flatnonzero(listing.split == number)
        chosen = chosen[np.argsort(listing.rows["order"][chosen], kind="stable")]
        order[split] = chosen
        count = _shard_count(len(chosen), int(listing.rows["size"][chosen].sum()), options)
        bounds = [index * len(chosen) // count for index in range(count + 1)]
        shards[split] = [
            (shard_name(options.name, split, index, count), bounds[index], bounds[index + 1])
            for index in range(count)
        ]
    description = {
        "plan_version": PLAN_VERSION,
        "name": options.name,
        "layout": listing.layout.template,
        "axes": {axis: list(names) for axis, names in listing.axes.items()},
        "shards": {split: len(files) for split, files in shards.items()},
        "images": len(listing),
        **_byte_options(options),
        "source": listing.fingerprint(),
    }
    return Plan(listing, options, description, shards, order)


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """TFDS's form: tensorflow_datasets/core/naming.py, {DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}."""
    return f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def _byte_options(options: Options) -> dict:
    fields = dataclasses.asdict(options)
    recipe = fields.pop("recipe")
    fields.pop("name")
    return fields | recipe


def _shard_count(images: int, size: int, options: Options) -> int:
    if options.num_shards:
        return min(options.num_shards, images)
    recipe = options.recipe
    if recipe.encoding == "raw":
        size = images * recipe.image_size**2 * 3
    by_size = -(-size // (options.shard_mb * 10**6))
    return max(1, min(images, max(by_size, min(MANY_SHARDS, images // IMAGES_PER_SHARD))))


def write_shard(common: Common, job: Job, counts: workers.Counts) -> None:
    """Writes and publishes one shard: `.npy`, `.idx`, its report, and the shard itself last.

    Raises:
      DataError: the input changed since it was listed, or cannot be read; the disk is full.
    """
    source, target = storage.open_folder(common.input_dir), storage.open_folder(common.output_dir)
    folder = target.path(WORK)
    partial = folder / f"{job.file}.{os.getpid()}.partial"
    try:
        with partial.open("wb") as file:
            report, index, table = _write_records(file, source, common, job, counts)
            storage.sync(file)
        for ending, data in ((".idx", index), (".npy", table)):
            target.write(job.file + ending, data, synced=False)
            report["sha256"][ending] = hashlib.sha256(data).hexdigest()
        target.write(f"{WORK}/{job.file}.json", json.dumps(report).encode(), synced=False)
        target.publish(partial, job.file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{common.output_dir}: no space left; free some and run the same command again: "
                "finished shards are kept"
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _write_records(file, source, common: Common, job: Job, counts) -> tuple[dict, bytes, bytes]:
    """Fills an open shard. Returns its report, and the contents of `.idx` and `.npy`."""
    axes, offset, digest = tuple(common.axes), 0, hashlib.sha256()
    tally = {key: collections.Counter() for key in ("cells", "image_sizes", "encodings", "reencoded")}
    rows, rejected = [], []
    for key, size, labels in job.images:
        checked = _fetch(source, key, size, common)
        if isinstance(checked, image.Rejected):
            rejected.append([records.key_text(key), checked.reason])
            counts.add(1, size, 1)
            continue
        record, start = records.build(checked.data, key, dict(zip(axes, labels, strict=True)))
        file.write(record)
        digest.update(record)
        rows.append(
            (offset, len(record), offset + start, len(checked.data), checked.height, checked.width,
             records.ENCODINGS.index(checked.encoding), labels)
        )  # fmt: skip
        offset += len(record)
        tally["cells"][_cell(common.axes, labels)] += 1
        tally["image_sizes"][f"{checked.height}x{checked.width}"] += 1
        tally["encodings"][checked.encoding] += 1
        if checked.note:
            tally["reencoded"][checked.note] += 1
        counts.add(1, size)
    index = "".join(f"{row[0]} {row[1]}\n" for row in rows).encode()
    stream = io.BytesIO()
    np.save(stream, np.array(rows, records.table_dtype(len(axes))), allow_pickle=False)
    report = {
        "file": job.file,
        "split": job.split,
        "records": len(rows),
        "bytes": offset,
        "sizes": {"": offset, ".idx": len(index), ".npy": stream.tell()},
        "sha256": {"": digest.hexdigest()},
        "rejected": rejected,
    }
    report |= tally
    return report, index, stream.getvalue()


def _fetch(source, key: bytes, size: int, common: Common) -> image.Checked | image.Rejected:
    if size > image.MAX_FILE_BYTES:
        return image.Rejected(f"{size:,} bytes: over the limit of {image.MAX_FILE_BYTES:,} bytes")
    where = f"{common.input_dir}/{records.key_text(key)}"
    try:
        data = source.read_image(key)
    except PermissionError:
        return image.Rejected("unreadable: permission denied")
    except OSError as error:
        raise DataError(
            f"{where}: {error.strerror or error}, though it was there when the folder was listed; "
            "see to it and run the same command again: finished shards are kept"
        ) from error
    if len(data) != size:
        raise DataError(
            f"{where}: {len(data)} bytes, but {size} when the folder was listed; "
            "let the folder rest while it is converted, and run the command again"
        )
    return image.check(data, common.recipe)


def _cell(axes: dict[str, tuple[str, ...]], labels: tuple[int, ...]) -> str:
    return "/".join(
        "?" if label < 0 else names[label] for names, label in zip(axes.values(), labels, strict=True)
    )


def write(
    made: Plan,
    output_dir: str,
    *,
    processes: int,
    max_rejected: float = 0.01,
    on_progress: Callable[[int, int, int], None] = lambda images, size, rejected: None,
    on_resume: Callable[[int, int], None] = lambda shards, images: None,
) -> tuple[manifest.Manifest, float]:
    """Writes a plan's shards into a folder and makes it whole; goes on where an earlier run ended.

    Args:
      made: the plan.
      output_dir: a new or empty folder, or one that an earlier run of the same plan left.
      processes: how many write shards at once.
      max_rejected: share of the images that may be rejected.
      on_progress: called with (images, bytes, rejected) done by this run.
      on_resume: called with the (shards, images) that an earlier run has done.

    Returns:
      The manifest, and the seconds that the writing took (0.0: all was there already).

    Raises:
      DataError: the folder holds something else; too many images are rejected; a worker died.
    """
    target = storage.open_folder(output_dir)
    whole = _finished(target, made)
    if whole is not None:
        return whole, 0.0
    _prepare(target, made)
    lock = storage.lock(target.path(LOCK_FILE))
    start = time.monotonic()
    done = {file: report for file in made.files if (report := _report(target, file)) is not None}
    if done:
        seen = sum(report["records"] + len(report["rejected"]) for report in done.values())
        on_resume(len(done), seen)
    common = Common(made.listing.root, output_dir, made.listing.axes, made.options.recipe)
    todo = set(made.files) - set(done)
    crew = workers.Crew(write_shard, common, workers=max(1, min(processes, len(todo))), on_tick=on_progress)
    try:
        for job, _ in crew.run(made.jobs(todo)):
            done[job.file] = _report(target, job.file)
    except workers.Died as death:
        key = death.job.images[min(death.done, len(death.job.images) - 1)][0]
        raise DataError(
            f"a worker died twice ({death.how}) at {made.listing.root}/{records.key_text(key)}; if memory "
            "was short use fewer --workers, else move that file away; the same command then goes on"
        ) from death
    reports = [done[file] for file in made.files]
    _require_few_rejected(made, reports, max_rejected, target)
    whole = _finish(target, made, reports)
    del lock
    return whole, time.monotonic() - start


def _finished(target, made: Plan) -> manifest.Manifest | None:
    """The folder's manifest if it is of this very plan. Raises DataError if it is of another."""
    if target.size(manifest.FILE_NAME) is None:
        return None
    held = manifest.load(target.root)
    found = {"name": held.name, "axes": {axis: list(names) for axis, names in held.axes.items()},
             "shards": {split: len(value.shards) for split, value in held.splits.items()},
             **held.options, "source": held.source}  # fmt: skip
    _require_same(target.root, found, made.description)
    shutil.rmtree(target.path(WORK), ignore_errors=True)  # killed after its last act but one
    return held


def _require_same(root: str, found: dict, wanted: dict) -> None:
    differing = [key for key in wanted if key != "source" and found.get(key) != wanted[key]]
    if not differing and found.get("source") != wanted["source"]:
        differing = ["source"]
    if not differing:
        return
    told = [
        "the input's files, sizes or labels"
        if key == "source"
        else f"{key} (there {json.dumps(found.get(key))}, now {json.dumps(wanted[key])})"
        for key in differing
    ]
    raise DataError(
        f"{root}: holds another conversion, which differs in {'; '.join(told)}; "
        "choose another --output_dir, or delete this one"
    )


def _prepare(target, made: Plan) -> None:
    """Makes the output folder ours, or finds it ours already."""
    names = [name for name in target.names() if name != WORK]
    if target.size(PLAN_FILE) is None:
        if names:
            raise DataError(
                f"{target.root}: is not empty (it holds {names[0]!r}) and no conversion of ours; "
                "choose a new or empty --output_dir"
            )
        target.path(WORK).mkdir(parents=True, exist_ok=True)
        target.write(PLAN_FILE, json.dumps(made.description, indent=1).encode())
        return
    try:
        found = json.loads(target.read(PLAN_FILE))
    except ValueError as error:
        raise DataError(f"{target.root}/{PLAN_FILE}: unreadable ({error}); delete --output_dir") from error
    _require_same(target.root, found, made.description)


def _report(target, file: str) -> dict | None:
    """The report of a published shard; None when it or a companion is missing or of another size.

    Companions and reports are not synced to the disk one by one: after a power cut they may be empty,
    and the shard is written again.
    """
    if target.size(file) is None:
        return None
    try:
        report = json.loads(target.read(f"{WORK}/{file}.json"))
    except (FileNotFoundError, ValueError):
        return None
    sizes = {ending: target.size(file + ending) for ending in ENDINGS}
    return report if sizes == report["sizes"] else None


def _require_few_rejected(made: Plan, reports: list[dict], max_rejected: float, target) -> None:
    rows = [row for report in reports for row in report["rejected"]]
    outside = len(made.listing.rejected) - made.listing.skipped
    images = len(made.listing) + outside
    rejected = len(rows) + outside
    if rejected <= max_rejected * images and rejected < images:
        return
    _write_rejected(target, made, reports)
    if rows:
        key, reason = rows[0]
    else:
        key, reason = records.key_text(made.listing.rejected[0][0]), made.listing.rejected[0][1]
    raise DataError(
        f"{made.listing.root}: {rejected:,} of {images:,} images are rejected, and --max_rejected allows "
        f"{max_rejected:.3g} of them; the first is {key} ({reason}), all are in "
        f"{target.root}/{REJECTED_FILE}; mend them and convert into a new folder, "
        "or run again with a higher --max_rejected: finished shards are kept"
    )


def _write_rejected(target, made: Plan, reports: list[dict]) -> int:
    rows = [[records.key_text(key), reason] for key, reason in made.listing.rejected]
    rows += [row for report in reports for row in report["rejected"]]
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(("key", "reason"))
    table.writerows(sorted(rows))
    target.write(REJECTED_FILE, stream.getvalue().encode("utf-8", "backslashreplace"))
    return len(rows)


def _finish(target, made: Plan, reports: list[dict]) -> manifest.Manifest:
    """Publishes rejected.csv, TFDS's metadata, and the manifest last."""
    listing = made.listing
    rejected = _write_rejected(target, made, reports)
    splits = {}
    for split in listing.splits:
        own = [report for report in reports if report["split"] == split]
        shards = [
            manifest.Shard(*(report[key] for key in ("file", "records", "bytes", "sha256"))) for report in own
        ]
        splits[split] = manifest.Split(tuple(shards), _sum(own, "cells"))
    sizes = sorted(_sum(reports, "image_sizes").items(), key=lambda pair: (-pair[1], pair[0]))
    few = dict(sizes[:MAX_SIZES])
    if len(sizes) > MAX_SIZES:
        few["other"] = sum(count for _, count in sizes[MAX_SIZES:])
    options = {key: value for key, value in made.description.items()
               if key not in ("name", "axes", "shards", "source")}  # fmt: skip
    whole = manifest.Manifest(
        name=made.options.name, axes=listing.axes, splits=splits, image_sizes=few,
        encodings=_sum(reports, "encodings"), rejected=rejected, options=options,
        source=made.description["source"], reencoded=_sum(reports, "reencoded"),
    )  # fmt: skip
    tfds_metadata.write(whole, target)
    manifest.save(whole, target.root)
    shutil.rmtree(target.path(WORK), ignore_errors=True)
    return whole


def _sum(reports: list[dict], key: str) -> dict[str, int]:
    total = collections.Counter()
    for report in reports:
        total.update(report[key])
    return dict(sorted(total.items()))


def clean_name(folder: str) -> str:
    """A data set's name from its folder's."""
    base = pathlib.Path(folder).resolve().name
    name = (
        "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in base)
        .strip("_")
        .lower()
    )
    if not name or name[0].isdigit():
        name = f"images_{name}".rstrip("_")
    return name
