"""A source of images, and the models of a run -> one prediction per image, in the order of the source."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from deepduel.prediction import sources
from deepduel.prediction.predictor import Predictor
from tfrecords_tools import progress
from tfrecords_tools.errors import DataError


@dataclasses.dataclass(frozen=True)
class ImagePrediction:
    """What the models predict for one image.

    Attributes:
      image: its name.
      reason: why it cannot be read; "" for a readable image. An unreadable one has no other attributes.
      pixels: uint8 [H, W, 3], as the models' input is made from.
      probabilities: {axis: float32 [classes]}.
      decisions: {axis: index of the predicted class}.
    """

    image: str
    reason: str
    pixels: np.ndarray
    probabilities: dict[str, np.ndarray]
    decisions: dict[str, int]


class Calibration(Protocol):
    """See `evaluation.calibration`."""

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray: ...

    def decide(self, probabilities: np.ndarray) -> np.ndarray: ...


def predict(
    source: sources.Source,
    predictor: Predictor,
    *,
    batch_size: int,
    on_error: str,
    calibrations: Mapping[str, Calibration],
) -> Iterator[ImagePrediction]:
    """Yields the prediction of every image of the source; with a progress bar.

    Args:
      batch_size: images per batch.
      on_error: "skip" yields an unreadable image with its reason, "fail" raises DataError for it.
      calibrations: {axis: what is applied to the probabilities before the decision}, of some axes or none.

    Raises:
      DataError: an image is unreadable, with `on_error` "fail"; or a model's probabilities are not finite.
    """
    done = unreadable = 0
    with progress.Progress("predicting", total=len(source)) as bar:
        for batch in sources.batches(source, batch_size, predictor.decoding):
            probabilities = predictor(batch["images"])
            _require_finite(probabilities)
            decisions = {axis: part.argmax(1) for axis, part in probabilities.items()}
            for axis, fitted in calibrations.items():
                probabilities[axis] = fitted.probabilities(probabilities[axis])
                decisions[axis] = fitted.decide(probabilities[axis])
            pixels = batch["images"].numpy()
            rows = zip(batch["numbers"].numpy().tolist(), batch["reasons"].numpy(), strict=True)
            for index, (number, reason) in enumerate(rows):
                if number < 0:
                    continue
                done += 1
                name, text = source.name(number), reason.decode()
                if reason and on_error == "fail":
                    raise DataError(f"{name}: {text}; set --on_error=skip to leave it out")
                unreadable += bool(reason)
                yield ImagePrediction(
                    name,
                    text,
                    pixels[index],
                    {axis: part[index] for axis, part in probabilities.items()},
                    {axis: int(part[index]) for axis, part in decisions.items()},
                )
            bar.update(done, f"{unreadable} unreadable" if unreadable else "")


def _require_finite(probabilities: Mapping[str, np.ndarray]) -> None:
    for axis, part in probabilities.items():
        if not np.isfinite(part).all():
            raise DataError(
                f"the {axis} model gives NaN or infinite probabilities: its training diverged; choose an "
                "earlier model with --model=epoch-NN"
            )
