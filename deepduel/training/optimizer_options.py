"""How a task's weights are updated: options that check themselves, without TensorFlow."""

import dataclasses
import math
import re

from tfrecords_tools.errors import UsageError

OPTIMIZERS = ("adam", "adamw", "muon", "nadam", "rmsprop", "lion", "sgd")
_SCHEDULE = re.compile(r"constant|cosine|onecycle|(step|plateau)(:[1-9]\d{0,5})?")
_WARMUP = re.compile(r"0|(\d+)steps|(\d+(?:\.\d+)?)epochs")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How a task's weights are updated.

    Attributes:
      optimizer: "adam", "adamw", "muon" (see the module muon), "nadam", "rmsprop", "lion" or "sgd" (with
        Nesterov momentum 0.9).
      learning_rate: peak learning rate.
      weight_decay: decoupled weight decay, multiplied with the learning rate, of kernels only (not of biases
        and norms); None for 0.004 with adamw and muon, else 0.
      schedule: "constant"; "cosine": down to 0 over all epochs; "onecycle": up in the first 30 % of the
        run, then down; "step" or "step:10": a tenth after each third of the run, or after each 10 epochs;
        "plateau" or "plateau:3": a fifth after 5 or 3 epochs without improvement. See `schedules`.
      warmup: how long the rate grows linearly: "500steps", a part of an epoch such as "0.5epochs", or "0".
      clip_norm: maximum global norm of the gradients; 0 disables clipping.

    Raises:
      UsageError: a value is out of range.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.001
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: str = "0"
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if not _SCHEDULE.fullmatch(self.schedule):
            raise UsageError(
                "schedule must be constant, cosine, onecycle, step, step:EPOCHS, plateau or plateau:EPOCHS, "
                f"got {self.schedule!r}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate must be above 0, got {self.learning_rate}")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"{name} must be a number from 0 on, got {value}")
        if not _WARMUP.fullmatch(self.warmup):
            raise UsageError(f"warmup must be like 0, 500steps or 0.5epochs, got {self.warmup!r}")
        if self.schedule == "onecycle" and self.warmup != "0":
            raise UsageError(f"schedule=onecycle warms up by itself; leave out warmup, got {self.warmup!r}")

    @property
    def schedule_parts(self) -> tuple[str, int]:
        """The name of the schedule, and its number of epochs; 0 where none is given."""
        name, _, epochs = self.schedule.partition(":")
        return name, int(epochs or 0)

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """The warm-up in updates."""
        match = _WARMUP.fullmatch(self.warmup)
        steps, epochs = match.groups() if match else (None, None)
        if epochs is not None:
            return round(float(epochs) * steps_per_epoch)
        return int(steps or 0)
