"""What decides a run: options that check themselves. Commands turn their flags into them."""

import dataclasses

from deepduel import models, pipeline
from deepduel.augmentation import Augmentation
from deepduel.mixing import Mixing
from tfrecords_tools.cli import UsageError


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """How one label axis is learnt.

    Attributes:
      axis: the label axis.
      architecture: of its network.
      augmentation: of its training images.
      learning_rate: of Adam.
      mixing: of its training images with one another.
    """

    axis: str
    architecture: models.Architecture
    augmentation: Augmentation
    learning_rate: float = 0.001
    mixing: Mixing = Mixing()

    def __post_init__(self):
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be above 0, got {self.learning_rate}")

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
      epochs: to train in all.
      micro_batch: images per pass through augmentation and frozen backbones.
      seed: of weights, order and augmentation.
      save_seconds, save_steps: how often the state is saved within an epoch; None: not for this reason.
      max_minutes: to train in this session, then the state is saved; 0: no limit.
      features: folder in which to keep the frozen backbones' features, see `features`; None: every epoch
        reads images.
      views: augmented views of each training image whose features are kept, >= 1.
    """

    data_dir: str
    workdir: str
    train_split: str
    validation_split: str
    reading: pipeline.Reading
    epochs: int
    micro_batch: int
    seed: int
    save_seconds: float | None = 300
    save_steps: int | None = None
    max_minutes: float = 0
    features: str | None = None
    views: int = 3

    def __post_init__(self):
        for name in ("epochs", "micro_batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
