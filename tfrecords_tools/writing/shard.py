"""One shard, from its images to its files: `SHARD`, `SHARD.idx`, `SHARD.npy` and a report.

`write` is all that a worker does, on this machine or on another. Nothing of what it
writes depends on where or when it runs.
"""

import collections
import dataclasses
import errno
import hashlib
import io
import json
from collections.abc import Callable
from typing import IO

import numpy as np

from tfrecords_tools.atomic import sync
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.folder import DamagedMember, Source
from tfrecords_tools.format.manifest import cell_name
from tfrecords_tools.format.storage import WORK
from tfrecords_tools.images import image
from tfrecords_tools.images.encoding_options import EncodingOptions
from tfrecords_tools.workers import Counts
from tfrecords_tools.writing.planning import Job, Plan

Progress = Callable[[int, int, int], None]  # called with (images, bytes, rejected) so far
_BUFFER_BYTES = 1 << 20  # the system takes large pieces in a third of the time
_WRITE_BYTES = 2 << 20  # the disk works while the next images are decoded


@dataclasses.dataclass(frozen=True)
class ShardContext:
    """What all shards of a conversion share. Picklable."""

    source: Source
    output_dir: str
    axes: dict[str, tuple[str, ...]]
    encoding: EncodingOptions
    plan_sha256: str = ""

    @classmethod
    def of(cls, plan: Plan, output_dir: str) -> "ShardContext":
        """What the shards of a plan share."""
        return cls(plan.listing.source, output_dir, plan.listing.axes, plan.options.encoding, plan.sha256)


def write(context: ShardContext, job: Job, counts: Counts) -> None:
    """Writes and publishes one shard: `.npy`, `.idx`, its report, and the shard itself last.

    Raises:
      DataError: the input changed since it was listed, or cannot be read; the disk is full; a shard to be
        rebuilt would not be the same (the existing file is left alone).
    """
    target = storage.open_folder(context.output_dir)
    partial = target.partial(job.file)
    try:
        with partial.open("wb", buffering=_BUFFER_BYTES) as file:
            report, index, table = _write_records(file, context, job, counts)
            sync(file)
        companions = {".idx": index, ".npy": table}
        report["sha256"] |= {ending: hashlib.sha256(data).hexdigest() for ending, data in companions.items()}
        if job.sha256 not in (None, report["sha256"]):
            raise DataError(
                f"{context.output_dir}/{job.file}: not replaced, because the rebuilt "
                "shard would have other bytes: an image has changed, or another version of Pillow or "
                "simplejpeg is installed; restore the image or the version, or convert into a new folder"
            )
        for ending, data in companions.items():
            target.write(job.file + ending, data, synced=False)
        target.write(f"{WORK}/{job.file}.json", json.dumps(report).encode(), synced=False)
        target.publish(partial, job.file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{context.output_dir}: no space left on the disk; free some and run the same command again: "
                "finished shards are kept"
            ) from error
        raise DataError(
            f"{context.output_dir}: {error.strerror or error}; remove the cause and run the same "
            "command again: finished shards are kept"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_records(
    file: IO[bytes], context: ShardContext, job: Job, counts: Counts
) -> tuple[dict, bytes, bytes]:
    """Fills an open shard. Returns its report, and the contents of `.idx` and `.npy`."""
    axes, offset, digest = tuple(context.axes), 0, hashlib.sha256()
    cells: collections.Counter[tuple[int, ...]] = collections.Counter()
    image_sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    encodings: collections.Counter[str] = collections.Counter()
    notes: collections.Counter[str] = collections.Counter()
    rows, rejected, flushed = [], [], 0
    for key, size, labels, place in job.images:
        checked = fetch(context, key, size, place)
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
        if offset - flushed >= _WRITE_BYTES:
            storage.start_writing(file, flushed, offset)
            flushed = offset
        cells[labels] += 1
        image_sizes[checked.height, checked.width] += 1
        encodings[checked.encoding] += 1
        if checked.note:
            notes[checked.note] += 1
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
        "cells": {cell_name(context.axes, labels): count for labels, count in cells.items()},
        "image_sizes": {f"{height}x{width}": count for (height, width), count in image_sizes.items()},
        "encodings": encodings,
        "reencoded": notes,
    }
    if context.plan_sha256:
        report["plan"] = context.plan_sha256
    return report, index, stream.getvalue()


def fetch(context: ShardContext, key: bytes, size: int, place: int) -> image.Checked | image.Rejected:
    """Reads and checks one image.

    Raises:
      DataError: it is not there any more, or has another size, or the disk fails.
    """
    if size > image.MAX_FILE_BYTES:
        return image.Rejected(f"{size:,} bytes: over the limit of {image.MAX_FILE_BYTES:,} bytes")
    try:
        data = context.source.read_image(key, size, place)
    except DamagedMember as error:
        return image.Rejected(str(error))
    except PermissionError:
        return image.Rejected("unreadable: permission denied")
    except OSError as error:
        raise DataError(
            f"{_path(context, key)}: {error.strerror or error}, though it was there when the folder was "
            "listed; restore it and run the same command again: finished shards are kept"
        ) from error
    if len(data) != size:
        raise DataError(
            f"{_path(context, key)}: {len(data)} bytes, but {size} when the folder was listed; "
            "do not change the folder while it is converted; run the command again"
        )
    checked = image.check(data, context.encoding)
    if isinstance(checked, image.Rejected):
        return image.with_remedy(checked, data, context.encoding)
    return checked


def _path(context: ShardContext, key: bytes) -> str:
    return f"{context.source.root}/{records.key_shown(key)}"
