"""What decides a run: options that check themselves. Commands turn their flags into them."""

import dataclasses

from deepduel.augmentation.options import Augmentation, Mixing
from deepduel.networks.architecture import Architecture, parse_head
from deepduel.reading.options import ReadOptions
from deepduel.runs.length import RunLength
from deepduel.training.optimizer_options import OptimizerOptions
from tfrecords_tools.errors import UsageError

MONITORS = {"accuracy": 1, "auc": 1, "loss": -1}  # of validation; -1: lower is better


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """How one label axis is learnt.

    Attributes:
      axis: the label axis.
      architecture: of its network.
      augmentation: of its training images.
      recipe: how its weights are updated.
      mixing: of its training images with one another.
      label_smoothing: share of each target that is spread over all classes, 0 <= share < 1.
      class_weights: "none", "balanced", or "NAME=2,OTHER=0.5".
      average: decay of the running averages of its weights, 0 <= decay < 1; 0: none.
      monitor: of validation, "accuracy", "auc" or "loss": decides which epoch is the best.
      patience: epochs without a better one after which it stops; 0: it never does.
    """

    axis: str
    architecture: Architecture
    augmentation: Augmentation
    recipe: OptimizerOptions = OptimizerOptions()
    mixing: Mixing = Mixing()
    label_smoothing: float = 0.0
    class_weights: str = "none"
    average: float = 0.0
    monitor: str = "accuracy"
    patience: int = 0

    def __post_init__(self):
        if not 0 <= self.average < 1:
            raise UsageError(f"ema must be from 0 to below 1, got {self.average}")
        if self.monitor not in MONITORS:
            raise UsageError(f"monitor must be one of {', '.join(MONITORS)}, got {self.monitor!r}")
        if self.patience < 0:
            raise UsageError(
                f"early_stopping must be a number of epochs, or 0 for never, got {self.patience}"
            )

    @property
    def augmentation_line(self) -> str:
        """What is done to its training images, the preset's parameters included."""
        parts = [text for text in (str(self.augmentation), str(self.mixing)) if text]
        return f"augmentation of {self.axis}: {', '.join(parts) or 'none'}"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Everything that decides a run, but for the tasks' own options.

    Attributes:
      data_dir, workdir: folder of shards to read, folder of the run to write.
      train_split, validation_split: names of splits.
      reading: how both are read; `size` None means the images' own size if they have one, else
        the largest input of the tasks.
      length: how many epochs to train in all, or for how long.
      micro_batch: images per pass through augmentation and backbones; None: found by trying.
      seed: of weights, order and augmentation.
      save_seconds, save_steps: how often the state is saved within an epoch; None: not for this reason.
      max_minutes: to train in this session, then the state is saved; 0: no limit.
      features: folder in which to keep the frozen backbones' features, see `features`; None: every epoch
        reads images.
      views: augmented views of each training image whose features are kept, >= 1.
      profile_steps: first and last step of the session, from 1, of which to write a trace; None: none.
      devices: "auto", all GPUs, or how many share each batch.
      shared_backbone: one backbone for all tasks, with a head for each.
      dry_run: say what the run would be, time a few steps, write nothing.
    """

    data_dir: str
    workdir: str
    train_split: str
    validation_split: str
    reading: ReadOptions
    length: RunLength
    micro_batch: int | None
    seed: int
    save_seconds: float | None = 300
    save_steps: int | None = None
    max_minutes: float = 0
    features: str | None = None
    views: int = 3
    profile_steps: tuple[int, int] | None = None
    devices: str = "auto"
    shared_backbone: bool = False
    dry_run: bool = False

    def __post_init__(self):
        if self.micro_batch is not None and self.micro_batch < 1:
            raise UsageError(f"micro_batch must be at least 1, got {self.micro_batch}")
        if self.devices != "auto" and not (self.devices.isdigit() and int(self.devices)):
            raise UsageError(f"devices must be auto or a number from 1 on, got {self.devices!r}")


def check_sharing(tasks: list[TaskOptions]) -> None:
    """Raises UsageError when the tasks cannot have one backbone."""
    if len(tasks) < 2:
        raise UsageError(f"--shared_backbone needs two tasks or more, and there is {tasks[0].axis} alone")
    for task in tasks:
        if task.patience:
            raise UsageError(
                f"--shared_backbone: --early_stopping would stop {task.axis} alone, and the backbone is "
                "trained for all tasks; leave it out"
            )
        for flag, value in _shared(task).items():
            if value != _shared(tasks[0])[flag]:
                raise UsageError(
                    f"--shared_backbone: {tasks[0].axis} and {task.axis} differ in {flag}; give both the same"
                )


def _shared(task: TaskOptions) -> dict[str, object]:
    """What tasks with one backbone must have in common, by flag."""
    fields = {
        f"--{name}": value
        for name, value in dataclasses.asdict(task.architecture).items()
        if name not in ("head", "mirrored")
    }
    pooling, _ = parse_head(task.architecture.head)
    return fields | {
        "the pooling of --head": pooling,
        "their augmentation": (task.augmentation, task.mixing),
        "--ema": task.average,
    }
