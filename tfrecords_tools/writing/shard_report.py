"""`.convert/SHARD.json`: what is known of a published shard while its conversion is at work."""

from typing import Any, NotRequired, TypedDict, cast

from tfrecords_tools.format import documents
from tfrecords_tools.format.documents import Count, FileName, HexDigest, SplitName
from tfrecords_tools.format.folder import WORK, Folder
from tfrecords_tools.format.manifest import ENDINGS


class Report(TypedDict):
    """The fields of the document; `shard.write` fills them."""

    file: FileName
    split: SplitName
    records: Count
    bytes: Count
    sizes: dict[str, Count]
    sha256: dict[str, HexDigest]
    rejected: list[tuple[str, str]]
    cells: dict[str, Count]
    image_sizes: dict[str, Count]
    encodings: dict[str, Count]
    reencoded: dict[str, Count]
    plan: NotRequired[HexDigest]


def read(target: Folder, file: str, plan: str) -> dict[str, Any] | None:
    """The report of a published shard; None when it or a companion is missing, of another size or plan.

    Args:
      plan: the SHA-256 of the plan. A report of version 0.1.0 names none.

    Companions and reports are not synced to the disk one by one: after a power cut they may be empty,
    and the shard is written again.
    """
    if target.size(file) is None:
        return None
    try:
        report = documents.read(target.read(f"{WORK}/{file}.json"), Report)
    except (FileNotFoundError, ValueError):
        return None
    sizes = {ending: target.size(file + ending) for ending in ENDINGS}
    if (report["file"], report["sizes"], set(report["sha256"])) != (file, sizes, set(ENDINGS)):
        return None
    if report.get("plan", plan) != plan:
        return None
    return cast(dict[str, Any], report)
