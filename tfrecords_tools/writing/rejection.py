"""The lists of what is in no shard, rejected.csv and skipped.csv, and the checks that it is not too much."""

import collections
import csv
import io
from collections.abc import Iterable

import numpy as np

from tfrecords_tools import terminal
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import cell_name
from tfrecords_tools.writing.planning import Plan

FILE_NAME = "rejected.csv"  # images that cannot be read or decoded
SKIPPED_FILE = "skipped.csv"  # other files, and images that the options leave out


def require_few(plan: Plan, reports: list[dict], max_rejected: float, target: Folder) -> None:
    """Raises DataError when more than this share of the images, or all of them, is rejected."""
    rows = [row for report in reports for row in report["rejected"]]
    outside = [[records.key_text(key), reason] for key, reason in plan.listing.rejected]
    images = len(plan.listing) + len(outside)
    rejected = rows + outside
    if len(rejected) <= max_rejected * images and len(rejected) < images:
        return
    target.write(FILE_NAME, table(plan, rows))
    key, reason = rejected[0]
    raise DataError(
        f"{plan.listing.root}: {len(rejected):,} of {images:,} images are rejected, but --max_rejected is "
        f"a share of {max_rejected:.3g}; the first is {key} ({reason}), all are in "
        f"{target.root}/{FILE_NAME}; repair them and convert into a new folder, "
        "or run again with a higher --max_rejected: finished shards are kept"
    )


def require_classes_left(plan: Plan, reports: list[dict], target: Folder) -> None:
    """Raises DataError when every image of a class, of one split, was rejected."""
    listing = plan.listing
    for split, order in plan.order.items():
        of_split = [report for report in reports if report["split"] == split]
        images: collections.Counter[str] = collections.Counter()
        for report in of_split:
            images.update(report["cells"])
        cells = np.unique(listing.labels[order], axis=0)
        counts = np.array([images[cell_name(listing.axes, cell)] for cell in cells.tolist()])
        missing = f"of split {split!r}" if not counts.any() else ""
        for column, (axis, names) in enumerate(listing.axes.items()):
            labelled = cells[:, column] >= 0
            planned = np.bincount(cells[labelled, column], minlength=len(names))
            left = np.bincount(cells[labelled, column], counts[labelled], len(names))
            lost = np.flatnonzero((planned > 0) & (left == 0))
            if len(lost) and not missing:
                missing = f"of {axis} {names[lost[0]]!r} in split {split!r}"
        if missing:
            rows = [row for report in of_split for row in report["rejected"]]
            target.write(FILE_NAME, table(plan, rows))
            raise DataError(
                f"{listing.root}: every image {missing} is rejected, see {target.root}/{FILE_NAME}; "
                "repair them and convert into a new folder, or pass --allow_missing_classes: "
                "finished shards are kept"
            )


def table(plan: Plan, rows: Iterable[Iterable[str]], earlier: bytes = b"") -> bytes:
    """The content of rejected.csv.

    Args:
      plan: its listing has the images that were rejected before any was read.
      rows: (key, reason) of the images that writing the shards rejected.
      earlier: the content of the file before this conversion.
    """
    return _table(plan.listing.rejected, rows, earlier)


def skipped_table(plan: Plan, rows: Iterable[Iterable[str]] = (), earlier: bytes = b"") -> bytes:
    """The content of skipped.csv; `rows` are further (key, reason), `earlier` as in `table`."""
    return _table(plan.listing.skipped, rows, earlier)


def count(table: bytes) -> int:
    """The number of rows of rejected.csv or skipped.csv."""
    return sum(1 for _ in csv.reader(io.StringIO(table.decode("utf-8"), newline=""))) - 1


def _table(listed: Iterable[tuple[bytes, str]], rows: Iterable[Iterable[str]], earlier: bytes) -> bytes:
    lines: set[tuple[str, ...]] = {(records.key_text(key), reason) for key, reason in listed}
    lines |= {tuple(row) for row in rows}
    earlier_rows = csv.reader(io.StringIO(earlier.decode("utf-8"), newline=""))
    next(earlier_rows, None)
    lines |= {tuple(row) for row in earlier_rows}
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(("key", "reason"))
    table.writerows((terminal.path_cell(key), *reason) for key, *reason in sorted(lines))
    return stream.getvalue().encode("utf-8", "backslashreplace")
