"""RUN/run.json: how images are prepared for a run's models, and what the models' outputs mean."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Annotated, NotRequired, TypedDict

import msgspec

from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents, split_names
from tfrecords_tools.format.documents import AxisName, Count, HexDigest, LabelName, OptionName, Seed, Side


class InitialCard(TypedDict):
    """What the networks of a task started from.

    Attributes:
      name: "none" (random weights), "imagenet", the name of a file, or RUN/TASK/FILE of another run.
      sha256: SHA-256 of the file, hex; "" for no file.
    """

    name: str
    sha256: HexDigest


class TaskCard(TypedDict):
    """What is needed to use the models of one task.

    Attributes:
      classes: label names in the order of the outputs.
      image_size: side of the models' input in pixels.
      crop_size: side of the square that is cut out of the middle first, 0 or absent for none.
      initial_weights: what the networks started from; absent in runs of earlier versions.
    """

    classes: list[LabelName]
    image_size: Side
    crop_size: NotRequired[Count]
    initial_weights: NotRequired[InitialCard]


@dataclasses.dataclass(frozen=True)
class RunCard:
    """What is needed to use a run's models.

    Attributes:
      tasks: by label axis.
      size: (height, width) in pixels to which images of another size are resized first.
      fit: how they are resized: "crop", "pad" or "native" (see `DecodeOptions`).
      fast_decode: whether JPEGs were decoded approximately.
      data_name: name in the manifest of the training data.
      data_source: source in the manifest of the training data.
      seed: random seed of the run.
      data_sha256: SHA-256 over the shards' own sums, of the splits that the run reads; "" for runs of earlier
        versions.
      libraries: what decoded and resampled the images when the run was begun, see `image.libraries`; empty
        for runs of earlier versions.
      validation_split: the split that was validated on, which may be a part such as "train[80%:]".
      data_options: options of the conversion, as in the manifest of the training data; empty for runs of
        earlier versions.
    """

    tasks: dict[AxisName, TaskCard]
    size: tuple[Side, Side]
    fit: Annotated[str, msgspec.Meta(pattern=r"^(?:crop|pad|native)\Z")]
    fast_decode: bool
    data_name: str
    data_source: str
    seed: Seed
    libraries: dict[str, str] = dataclasses.field(default_factory=dict)
    data_sha256: Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{64})?\Z")] = ""
    validation_split: str = "validation"
    data_options: dict[OptionName, str | int | float | bool | None] = dataclasses.field(default_factory=dict)

    def evaluated_split(self, name: str, splits: Iterable[str]) -> str:
        """The split that a name means: "validation" is what the run validated on if the data have none.

        Args:
          name: as a user wrote it.
          splits: names of the data's splits.
        """
        missing = name == split_names.VALIDATION and split_names.find(splits, name) is None
        return self.validation_split if missing else name

    @classmethod
    def load(cls, workdir: str | os.PathLike) -> "RunCard":
        """Reads RUN/run.json. Raises DataError if the folder is not a run's or the file is unreadable."""
        path = pathlib.Path(workdir, "run.json")
        try:
            return documents.read_file(path, cls)
        except FileNotFoundError:
            raise DataError(
                f"{workdir}: no run.json, so this is not a run's folder; train with python -m deepduel.train "
                f"--workdir={workdir}"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: unreadable ({error}); train the run again") from error

    def save(self, workdir: pathlib.Path) -> None:
        """Writes RUN/run.json, published by rename."""
        with published(workdir / "run.json") as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")
