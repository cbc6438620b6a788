"""RUN/run.json: how images must be brought to a run's models, and what their outputs mean."""

import dataclasses
import json
import os
import pathlib

from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError


@dataclasses.dataclass(frozen=True)
class RunCard:
    """What a user of a run's models has to know.

    Attributes:
      tasks: {axis: {"classes": label names in the order of the outputs, "image_size": pixels,
        "crop_size": side of the square that is cut out of the middle first, 0 for none}}.
      size: (height, width) that images of another size are brought to before anything else.
      fit: how, "crop", "pad" or "native" (see `fitting.DecodeOptions`).
      fast_decode: whether JPEGs were decoded approximately.
      data_name, data_source: of the manifest that was trained on.
      seed: of the run.
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
        """Raises DataError when the folder holds no run."""
        path = pathlib.Path(workdir, "run.json")
        try:
            document = json.loads(path.read_text("utf-8"))
            return cls(**document | {"size": tuple(document["size"])})
        except FileNotFoundError:
            raise DataError(
                f"{workdir}: no run.json, so no run lies here; train one with python -m deepduel.train "
                f"--workdir={workdir}"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: unreadable ({error}); train the run anew") from error

    def save(self, workdir: pathlib.Path) -> None:
        with published(workdir / "run.json") as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")
