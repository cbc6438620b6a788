"""How long a run is: a number of epochs, or as many as fit into a time (`--epochs=55min`).

The first epoch shows how long an epoch takes; how many fit is estimated again after each. A cosine schedule
spans what is planned at the moment, and begins with the second epoch.
"""

import dataclasses
import re
import statistics
from collections.abc import Sequence

from tfrecords_tools.errors import UsageError

_RECENT = 3  # epochs; their median is the estimate for the next one


@dataclasses.dataclass(frozen=True)
class RunLength:
    """The length of a run, over all its sessions.

    Attributes:
      epochs: total number of epochs; None for as many as fit into `minutes`.
      minutes: time budget for training and validation; 0 where the epochs are given.

    Raises:
      UsageError: there is no epoch, or no time.
    """

    epochs: int | None
    minutes: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"epochs must be at least 1, got {self.epochs}")
        if self.epochs is None and not self.minutes > 0:
            raise UsageError(f"epochs must be at least 1 or more than 0min, got {self.minutes:g}min")

    @classmethod
    def parse(cls, text: str) -> "RunLength":
        """From "13" or "55min". Raises UsageError."""
        if re.fullmatch(r"-?\d+", text):
            return cls(int(text))
        match = re.fullmatch(r"(\d+(?:\.\d+)?)min", text)
        if not match:
            raise UsageError(f"epochs must be a number, or a time such as 55min, got {text!r}")
        return cls(None, float(match[1]))

    def planned(self, seconds: Sequence[float]) -> int | None:
        """The total number of epochs; None before the first has ended where the length is a time.

        Args:
          seconds: how long each finished epoch took.
        """
        if self.epochs is not None or not seconds:
            return self.epochs
        recent = seconds[-_RECENT:]
        # Of the first ones the fastest: the first epoch also traces the step, and may fill a cache.
        expected = statistics.median(recent) if len(recent) == _RECENT else min(recent)
        remaining = 60 * self.minutes - sum(seconds)
        return len(seconds) + max(int(remaining // expected), 0)
