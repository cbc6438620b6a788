"""Predictions for the terminal: a line for each image and task, with the most probable labels.

photo.jpg  category: cats 97.2%, dogs 2.1%, owls 0.7%
"""

import sys
from typing import TYPE_CHECKING

import numpy as np

from tfrecords_tools import terminal

if TYPE_CHECKING:
    from deepduel.prediction.image_predictions import ImagePrediction

_LABELS = 5  # of a line


class TerminalTable:
    """Takes rows and rejected images like `submission.Writer`, and prints them at once.

    Attributes:
      rows, rejected: number of images predicted and rejected so far.
      first_reason: name and reason of the first unreadable image; "" if there is none.
      rejected_path: None, since no list of unreadable images is written.
    """

    rejected_path = None

    def __init__(self, classes: dict[str, tuple[str, ...]]):
        """Args:
        classes: {axis: label names}.
        """
        self._classes = classes
        self.rows = self.rejected = 0
        self.first_reason = ""

    def add(self, prediction: "ImagePrediction") -> None:
        """Prints a line for each task, the predicted label first."""
        self.rows += 1
        for axis, names in self._classes.items():
            chosen, values = prediction.decisions[axis], prediction.probabilities[axis]
            order = [index for index in np.argsort(-values).tolist() if index != chosen]
            shown = [f"{names[index]} {values[index]:.1%}" for index in [chosen, *order][:_LABELS]]
            more = f", {len(names) - _LABELS} more" if len(names) > _LABELS else ""
            print(terminal.one_line(f"{prediction.image}  {axis}: {', '.join(shown)}{more}"), flush=True)

    def reject(self, image: str, reason: str) -> None:
        """Prints the reason why an image is unreadable."""
        self.rejected += 1
        self.first_reason = self.first_reason or f"{image}: {reason}"
        print(terminal.one_line(f"{image}: {reason}"), file=sys.stderr)
