"""One damage of a data folder, and how it is repaired."""

import dataclasses
import shlex

from tfrecords_tools.format.manifest import ENDINGS, Manifest


@dataclasses.dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
      file: its name in the data folder.
      what: the rule that is broken.
      record: number within the shard; -1: the whole file.
      key: the record's key for people; "" when unknown.
    """

    file: str
    what: str
    record: int = -1
    key: str = ""

    def __str__(self) -> str:
        place = "" if self.record < 0 else f", record {self.record}"
        return f"{self.file}{place}{f' ({self.key})' if self.key else ''}: {self.what}"


def damaged_shards(manifest: Manifest, damages: list[Damage]) -> list[str]:
    """Names of the shards that damages lie in, companions counted to their shard."""
    files = {damage.file for damage in damages}
    return [
        part.file
        for split in manifest.splits.values()
        for part in split.shards
        if files & {part.file + ending for ending in ENDINGS}
    ]


def rebuild_command(manifest: Manifest, data_dir: str) -> str:
    """The command that rebuilds the damaged files of a folder."""
    words = ["python -m tfrecords_tools.convert --input_dir=IMAGES", f"--output_dir={shlex.quote(data_dir)}"]
    words.append(f"--name={manifest.name}")
    for name, value in manifest.options.items():
        if name != "plan_version":
            words.append(f"--{name}={shlex.quote(str(value))}")
    return " ".join([*words, "--repair"])
