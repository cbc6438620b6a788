"""rejected.csv: which images did not enter, and why; and when they are too many."""

import collections
import csv
import io
from collections.abc import Iterable

import numpy as np

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records
from tfrecords_tools.format.folder import Folder
from tfrecords_tools.format.manifest import cell_name
from tfrecords_tools.writing.planning import Plan

FILE_NAME = "rejected.csv"


def require_few(made: Plan, reports: list[dict], max_rejected: float, target: Folder) -> None:
    """Raises DataError when more than this share of the images, or all of them, is rejected."""
    rows = [row for report in reports for row in report["rejected"]]
    outside = [[records.key_text(key), reason] for key, reason in made.listing.rejected]
    images = len(made.listing) + len(outside)
    rejected = rows + outside
    if len(rejected) <= max_rejected * images and len(rejected) < images:
        return
    target.write(FILE_NAME, table(made, rows))
    key, reason = rejected[0]
    raise DataError(
        f"{made.listing.root}: {len(rejected):,} of {images:,} images are rejected, but --max_rejected is "
        f"a share of {max_rejected:.3g}; the first is {key} ({reason}), all are in "
        f"{target.root}/{FILE_NAME}; repair them and convert into a new folder, "
        "or run again with a higher --max_rejected: finished shards are kept"
    )


def require_classes_left(made: Plan, reports: list[dict], target: Folder) -> None:
    """Raises DataError when every image of a class, of one split, was rejected."""
    listing = made.listing
    for split, order in made.order.items():
        own = [report for report in reports if report["split"] == split]
        left: collections.Counter[str] = collections.Counter()
        for report in own:
            left.update(report["cells"])
        cells = np.unique(listing.labels[order], axis=0)
        found = np.array([left[cell_name(listing.axes, cell)] for cell in cells.tolist()])
        gone = f"of split {split!r}" if not found.any() else ""
        for column, (axis, names) in enumerate(listing.axes.items()):
            for label in np.unique(cells[:, column][cells[:, column] >= 0]).tolist():
                if not gone and not found[cells[:, column] == label].any():
                    gone = f"of {axis} {names[label]!r} in split {split!r}"
        if gone:
            rows = [row for report in own for row in report["rejected"]]
            target.write(FILE_NAME, table(made, rows))
            raise DataError(
                f"{listing.root}: every image {gone} is rejected, see {target.root}/{FILE_NAME}; "
                "repair them and convert into a new folder, or pass --allow_missing_classes: "
                "finished shards are kept"
            )


def table(made: Plan, rows: Iterable[Iterable[str]], earlier: bytes = b"") -> bytes:
    """The file: what the listing and the shards (`rows`: key, reason) rejected, and what stood in it."""
    listed = made.listing.rejected + made.listing.skipped
    found: set[tuple[str, ...]] = {(records.key_text(key), reason) for key, reason in listed}
    found |= {tuple(row) for row in rows}
    old = csv.reader(io.StringIO(earlier.decode("utf-8"), newline=""))
    next(old, None)
    found |= {tuple(row) for row in old}
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(("key", "reason"))
    table.writerows(sorted(found))
    return stream.getvalue().encode("utf-8", "backslashreplace")
