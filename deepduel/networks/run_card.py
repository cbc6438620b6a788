"""RUN/run.json: how images are prepared for a run's models, and what the models' outputs mean."""

import dataclasses
import json
import os
import pathlib

from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError


@dataclasses.dataclass(frozen=True)
class RunCard:
    """What is needed to use a run's models.

    Attributes:
      tasks: {axis: {"classes": label names in the order of the outputs, "image_size": pixels,
        "crop_size": side of the square that is cut out of the middle first, 0 for none}}.
      size: (height, width) in pixels to which images of another size are resized first.
      fit: how they are resized: "crop", "pad" or "native" (see `DecodeOptions`).
      fast_decode: whether JPEGs were decoded approximately.
      data_name: name in the manifest of the training data.
      data_source: source in the manifest of the training data.
      seed: random seed of the run.
    """

    tasks: dict[str, dict]
    size: tuple[int, int]
    fit: str
    fast_decode: bool
    data_name: str
    data_source: str
    seed: int

    @classmethod
    def load(cls, workdir: str | os.PathLike) -> "RunCard":
        """Reads RUN/run.json. Raises DataError if the folder is not a run's or the file is unreadable."""
        path = pathlib.Path(workdir, "run.json")
        try:
            document = json.loads(path.read_text("utf-8"))
            return cls(**document | {"size": tuple(document["size"])})
        except FileNotFoundError:
            raise DataError(
                f"{workdir}: no run.json, so this is not a run's folder; train with python -m deepduel.train "
                f"--workdir={workdir}"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: unreadable ({error}); train the run again") from error

    def save(self, workdir: pathlib.Path) -> None:
        """Writes RUN/run.json, published by rename."""
        with published(workdir / "run.json") as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")
