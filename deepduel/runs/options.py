"""The options of a run, which check themselves. Commands turn their flags into them."""

import dataclasses
import math

from deepduel.augmentation.mixing_options import Mixing
from deepduel.augmentation.options import Augmentation
from deepduel.networks.architecture import Architecture, parse_head
from deepduel.reading.options import ReadOptions
from deepduel.runs.length import RunLength
from deepduel.training.cluster import Cluster
from deepduel.training.optimizer_options import OptimizerOptions
from tfrecords_tools.errors import UsageError

MONITORS = {"accuracy": 1, "auc": 1, "loss": -1}  # validation metrics; -1 where lower is better


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """How one label axis is learnt.

    Attributes:
      axis: the label axis.
      architecture: its network.
      augmentation: the augmentation of its training images.
      optimizer: how its weights are updated.
      mixing: MixUp and CutMix of its training images.
      label_smoothing: share of each target that is spread over all classes, 0 <= share < 1.
      class_weights: weights of the classes in the loss: "none", "balanced", or "NAME=2,OTHER=0.5".
      ema: decay of the running averages of its weights, 0 <= ema < 1; 0 for none.
      monitor: validation metric that decides which epoch is the best: "accuracy", "auc" or "loss".
      start_from: the run or the model to start from, see `start_model.find`; None for the architecture's
        initial weights.
      early_stopping: epochs without improvement after which it stops; 0 for never.

    Raises:
      UsageError: a value is out of range.
    """

    axis: str
    architecture: Architecture
    augmentation: Augmentation
    optimizer: OptimizerOptions = OptimizerOptions()
    mixing: Mixing = Mixing()
    label_smoothing: float = 0.0
    class_weights: str = "none"
    ema: float = 0.0
    monitor: str = "accuracy"
    early_stopping: int = 0
    start_from: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must be from 0 to below 1, got {self.ema}")
        if self.monitor not in MONITORS:
            raise UsageError(f"monitor must be one of {', '.join(MONITORS)}, got {self.monitor!r}")
        if self.early_stopping < 0:
            raise UsageError(
                f"early_stopping must be a number of epochs, or 0 for never, got {self.early_stopping}"
            )

    @property
    def augmentation_line(self) -> str:
        """One line with the augmentation of its training images, parameter by parameter."""
        parts = [text for text in (str(self.augmentation), str(self.mixing)) if text]
        return f"augmentation of {self.axis}: {', '.join(parts) or 'none'}"


@dataclasses.dataclass(frozen=True)
class SaveInterval:
    """How often a run's state is saved within an epoch.

    Attributes:
      seconds: after so many seconds since the last time; None for not by time.
      steps: whenever the number of finished steps is divisible by it; None for not by steps.
    """

    seconds: float | None = 300
    steps: int | None = None

    def due(self, steps_done: int, seconds: float) -> bool:
        """Whether to save after so many steps of the epoch, so many seconds after the last time."""
        by_steps = self.steps is not None and steps_done % self.steps == 0
        return by_steps or (self.seconds is not None and seconds >= self.seconds)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """All options of a run but those of its tasks.

    Attributes:
      data_dir, workdir: folder of the shards, folder of the run.
      train_split, validation_split: names of splits.
      reading: how both are read; with `size` None images of one size are left as they are, and those of
        mixed sizes are resized to the largest input of the tasks.
      length: total number of epochs, or a time budget.
      micro_batch: images per pass through augmentation and backbones; None to find the fastest that fits.
      seed: random seed for weight initialisation, data order and augmentation, >= 0.
      save_interval: how often the state is saved within an epoch.
      max_minutes: length of this session, after which the state is saved; 0 for no limit.
      features: folder in which to store the frozen backbones' features, see `features`; None to read images
        in every epoch.
      views: augmented views of each training image whose features are stored, >= 1.
      profile_steps: first and last step of the session, from 1, that the profiler traces; None for no trace.
      devices: number of GPUs that share each batch, as text; "auto" for all.
      shared_backbone: whether all tasks have one backbone, with a head for each.
      dry_run: whether only to describe the run and time a few steps, and to write nothing.
      jit_compile: whether XLA compiles the networks; None to try on GPUs whether that is faster.
      find_learning_rate: whether only to search for a learning rate, see `rate_search`.
      keep_epochs: how many of the latest epochs' models are kept, besides the best one; 0 for all.
      cluster: the processes that train together, `reading` this one's part of each batch; None for one alone.

    Raises:
      UsageError: a value is out of range.
    """

    data_dir: str
    workdir: str
    train_split: str
    validation_split: str
    reading: ReadOptions
    length: RunLength
    micro_batch: int | None
    seed: int
    save_interval: SaveInterval = SaveInterval()
    max_minutes: float = 0
    features: str | None = None
    views: int = 3
    profile_steps: tuple[int, int] | None = None
    devices: str = "auto"
    shared_backbone: bool = False
    dry_run: bool = False
    keep_epochs: int = 0
    find_learning_rate: bool = False
    jit_compile: bool | None = None
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise UsageError(f"micro_batch must be at least 1, got {self.micro_batch}")
        if self.devices != "auto" and not (self.devices.isdigit() and int(self.devices)):
            raise UsageError(f"devices must be auto or a number from 1 on, got {self.devices!r}")
        if self.cluster:
            self._check_cluster()

    def _check_cluster(self) -> None:
        refused = {
            f"devices={self.devices}": self.devices not in ("auto", "1"),
            "cache=features": self.features is not None,
            "data_workers": bool(self.reading.data_workers),
            "dry_run": self.dry_run,
            "find_learning_rate": self.find_learning_rate,
        }
        reasons = {
            f"devices={self.devices}": "each worker has one device; start one worker per GPU",
            "cache=features": "features are computed by one process; leave it or the cluster out",
            "data_workers": "they serve one process; leave them or the cluster out",
        }
        for option, is_given in refused.items():
            if is_given:
                reason = reasons.get(option, "it is for one process; leave the cluster out")
                raise UsageError(f"{option} does not go together with a cluster: {reason}")


def better(monitor: str, value: float, best: float) -> bool:
    """Whether a value of a monitored metric beats the best one so far; NaN never does."""
    return not math.isnan(value) and (math.isnan(best) or MONITORS[monitor] * (value - best) > 0)


def check_sharing(tasks: list[TaskOptions]) -> None:
    """Raises UsageError when the tasks cannot have one backbone."""
    if len(tasks) < 2:
        raise UsageError(f"shared_backbone needs two or more tasks, got {tasks[0].axis} alone")
    for task in tasks:
        if task.early_stopping:
            raise UsageError(
                f"shared_backbone: early_stopping would stop {task.axis} alone, and the backbone is "
                "trained for all tasks; leave early_stopping out"
            )
        for name, value in _shared(task).items():
            if value != _shared(tasks[0])[name]:
                raise UsageError(
                    f"shared_backbone: {tasks[0].axis} and {task.axis} differ in {name}; give both the same"
                )


def check_cluster(tasks: list[TaskOptions]) -> None:
    """Raises UsageError when several processes cannot train the tasks."""
    for task in tasks:
        if task.mixing:
            raise UsageError(
                f"{task.axis}: {task.mixing} mixes images of the entire batch, of which each worker of a "
                "cluster has a part; leave MixUp and CutMix out"
            )


def _shared(task: TaskOptions) -> dict[str, object]:
    """What tasks with one backbone must have in common, by name."""
    fields = {
        name: value
        for name, value in dataclasses.asdict(task.architecture).items()
        if name not in ("head", "mirrored")
    }
    pooling, _ = parse_head(task.architecture.head)
    return fields | {
        "the pooling of head": pooling,
        "their augmentation": (task.augmentation, task.mixing),
        "ema": task.ema,
    }
