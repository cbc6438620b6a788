"""What `benchmark_throughput` tells a contender's process: one JSON file, paths absolute."""

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Job:
    """What a contender is told.

    Attributes:
      contender: its name.
      prepare: whether to call its `prepare` instead of measuring.
      data_dir, split: folder of shards.
      shards: paths of the split's shards.
      files: images of the split, in the order of the records.
      folder: the same as links, in one folder per label, for loaders that want it so.
      labels: label per file.
      scratch: folder for what contenders write.
      size: height and width of every image, pixels.
      target_size: side of augmented images, pixels.
      batch_size: images.
      threads: cores to use; the process may run on no others.
      seconds, warmup_seconds: of the measurement. A cold measurement takes one epoch instead.
      cold: whether the page cache is emptied of the contender's files first.
      bytes: encoded images of the split in all.
    """

    contender: str
    prepare: bool
    data_dir: str
    split: str
    shards: list[str]
    files: list[str]
    folder: str
    labels: list[int]
    scratch: str
    size: tuple[int, int]
    target_size: int
    batch_size: int
    threads: int
    seconds: float
    warmup_seconds: float
    cold: bool
    bytes: int

    def stored(self, reads: str | None) -> list[str]:
        """The files that a contender reads, by `Contender.reads`."""
        if reads is None:
            return []
        if reads in ("shards", "files"):
            return self.shards if reads == "shards" else self.files
        if reads == "decoded":
            folders = os.walk(os.path.join(self.scratch, reads))  # noqa: PTH118, paths are text in this program
            return [os.path.join(folder, name) for folder, _, names in folders for name in names]  # noqa: PTH118, likewise
        return [self.beton(reads.removeprefix("ffcv_"))]

    def beton(self, mode: str) -> str:
        """FFCV's file for write_mode `mode`."""
        return os.path.join(self.scratch, f"{mode}.beton")  # noqa: PTH118, likewise
