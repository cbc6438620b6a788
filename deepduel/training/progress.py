"""How far a fit has come: the trainer writes it, callbacks read it."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Progress:
    """Counters of a running fit.

    Attributes:
      steps_done: finished steps of the current epoch, those of an earlier session included.
      input_seconds: seconds that this session has waited for batches.
      latest_records: int64 [B], record numbers of the latest batch; -1 for padding. On a GPU it is a tensor
        in its memory: `records` waits for it, which a step need not.
      validation: (records int64 [B], {task: logits float32 [B, classes]}) of each batch of the latest
        validation.
    """

    steps_done: int = 0
    input_seconds: float = 0.0
    latest_records: Any = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    validation: list[tuple[np.ndarray, dict[str, np.ndarray]]] = dataclasses.field(default_factory=list)

    @property
    def records(self) -> np.ndarray:
        """`latest_records` as an array."""
        return np.asarray(self.latest_records)
