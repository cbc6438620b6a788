"""A picture for each predicted image and task: what the model saw, and beside it a heat map of what decided.

The heat maps are those of the report, see `gallery.grad_cam`.
"""

import collections
import pathlib
import re
import sys

import numpy as np
from PIL import Image

from deepduel.prediction.image_predictions import ImagePrediction
from deepduel.prediction.predictor import Predictor
from deepduel.reports import gallery
from tfrecords_tools.atomic import written_beside
from tfrecords_tools.errors import DataError

_LEAST_SIDE = 320  # smaller images are enlarged, pixels
_LONGEST = 100  # bytes of an image's name in that of its picture, which a file system may limit to 255


class HeatMaps:
    """Writes the pictures.

    Attributes:
      count: number of pictures written.
    """

    def __init__(self, predictor: Predictor, folder: pathlib.Path | None):
        """Args:
        folder: for the pictures, created where it is missing; None puts each beside its image, a file.
        """
        self._predictor = predictor
        self._folder = folder
        self._without: set[str] = set()  # tasks whose networks have no feature maps to explain
        self._images: collections.Counter[str] = collections.Counter()  # by their names in those of pictures
        self.count = 0

    def add(self, prediction: ImagePrediction) -> list[np.ndarray]:
        """Writes a picture for each task, and returns them, uint8 [H, W, 3].

        Raises:
          DataError: a picture cannot be written.
        """
        pictures = []
        stem = self._stem(prediction.image)
        for axis in self._predictor.classes:
            picture = draw(self._predictor, prediction, axis)
            if picture is not None:
                self._write(picture, pathlib.Path(f"{stem}.{axis}.heat.png"))
                pictures.append(picture)
            elif axis not in self._without:
                self._without.add(axis)
                print(f"no heat maps for {axis}: its network has no feature maps", file=sys.stderr)
        return pictures

    def _stem(self, image: str) -> str:
        """The path of an image's pictures without their ending, another one for each image."""
        if self._folder is None:
            return image
        name = re.sub(r"[^\w.-]+", "_", image).encode()[-_LONGEST:].decode(errors="ignore")
        name = name.strip("_.") or "image"
        self._images[name] += 1
        again = self._images[name]
        return f"{self._folder / name}{f'-{again}' if again > 1 else ''}"

    def _write(self, picture: np.ndarray, path: pathlib.Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_beside(path, ending=".png") as partial:
                Image.fromarray(picture).save(partial)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
        self.count += 1


def side_by_side(predictor: Predictor, prediction: ImagePrediction) -> np.ndarray | None:
    """What `draw` gives for each task, in one row; None where no network has feature maps."""
    drawn = [draw(predictor, prediction, axis) for axis in predictor.classes]
    pictures = [picture for picture in drawn if picture is not None]
    return np.concatenate(pictures, axis=1) if pictures else None


def draw(predictor: Predictor, prediction: ImagePrediction, axis: str) -> np.ndarray | None:
    """The image, and beside it its heat map: uint8 [H, 2 W, 3]; None for a network without feature maps."""
    heat = gallery.grad_cam(predictor.models[axis], predictor.inputs(prediction.pixels[None], axis))
    if heat is None:
        return None
    image = Image.fromarray(prediction.pixels)
    factor = -(-_LEAST_SIDE // min(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return np.concatenate([pixels, gallery.overlay(pixels, heat[0])], axis=1)
