"""How a task's weights are updated: options that check themselves, without TensorFlow."""

import dataclasses
import math
import re

from tfrecords_tools.errors import UsageError

OPTIMIZERS = ("adam", "adamw", "muon", "nadam", "rmsprop", "lion", "sgd")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How a task's weights are updated.

    Attributes:
      optimizer: "adam", "adamw", "muon" (see muon), "nadam", "rmsprop", "lion" or "sgd" (Nesterov momentum
        0.9).
      learning_rate: the highest of the schedule.
      weight_decay: decoupled, times the learning rate, on kernels only (not on biases and norms);
        None: 0.004 for adamw and muon, else 0.
      schedule: "constant", or "cosine": down to 0 over all epochs (arXiv 1608.03983, one period).
      warmup: the rate grows linearly for so long: "500steps", or a share of an epoch, "0.5epochs"; "0".
      clip_norm: the gradients are shortened together to this norm if they are longer, by the training step;
        0: never.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.001
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: str = "0"
    clip_norm: float = 0.0

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if self.schedule not in ("constant", "cosine"):
            raise UsageError(f"schedule must be constant or cosine, got {self.schedule!r}")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be above 0, got {self.learning_rate}")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name} must be a number from 0 on, got {value}")
        if not re.fullmatch(r"0|\d+steps|\d+(\.\d+)?epochs", self.warmup):
            raise UsageError(f"warmup must be like 0, 500steps or 0.5epochs, got {self.warmup!r}")

    def warmup_steps(self, steps_per_epoch: int) -> int:
        number, unit = re.fullmatch(r"([\d.]+)(\w*)", self.warmup).groups()
        return round(float(number) * (steps_per_epoch if unit == "epochs" else 1))
