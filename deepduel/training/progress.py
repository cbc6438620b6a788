"""How far a fit has come: the trainer writes it, callbacks read it."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Progress:
    """Counters of a running fit.

    Attributes:
      steps_done: finished steps of the current epoch, those of an earlier session included.
      input_seconds: seconds that this session has waited for batches.
      records: int64 [B], record numbers of the latest batch; -1 for padding.
      validation: (records int64 [B], {task: logits float32 [B, classes]}) of each batch of the latest
        validation.
    """

    steps_done: int = 0
    input_seconds: float = 0.0
    records: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    validation: list[tuple[np.ndarray, dict[str, np.ndarray]]] = dataclasses.field(default_factory=list)
