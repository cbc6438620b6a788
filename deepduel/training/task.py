"""One label axis that is learnt: its networks, and how its images and labels become a loss."""

import dataclasses
import functools

import keras

from deepduel.augmentation.mixing_options import Mixing
from deepduel.augmentation.options import Augmentation
from deepduel.networks.task_model import TaskModel
from deepduel.training.schedules import Plateau
from deepduel.training.task_losses import Objective
from deepduel.training.weight_averages import Averages


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained for one label axis.

    Attributes:
      name: the label axis.
      model: its networks. Tasks whose models have the same extractor share it.
      augmentation: the augmentation of its training images.
      optimizer: an optimizer of its own; one that scales the loss where the backbone is trained in float16.
      mixing: MixUp and CutMix of its training images.
      objective: how labels become targets.
      ema: decay of the running averages of its weights, 0 <= ema < 1; 0 for none.
      clip_norm: maximum global norm of its gradients; 0 disables clipping.
      monitor: validation metric that decides which epoch is the best: "accuracy", "auc" or "loss".
      patience: epochs without improvement after which it stops; 0 for never.
      plateau: the shape of its learning rate, with the schedule "plateau".
      shares_extractor: whether its extractor is that of an earlier task, the owner, which trains it.
    """

    name: str
    model: TaskModel
    augmentation: Augmentation
    optimizer: keras.optimizers.Optimizer
    mixing: Mixing = Mixing()
    objective: Objective = Objective()
    ema: float = 0.0
    clip_norm: float = 0.0
    monitor: str = "accuracy"
    patience: int = 0
    shares_extractor: bool = False
    plateau: Plateau | None = None

    @property
    def trainable(self) -> bool:
        """Whether the backbone is trained too."""
        return self.model.architecture.trainable

    @property
    def trains_statistics(self) -> bool:
        """Whether the backbone runs in training mode: batch-norm statistics, its own dropout."""
        return self.model.architecture.trains_statistics

    @property
    def size(self) -> int:
        """Side of the network's square input, pixels."""
        return self.model.architecture.image_size

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.model.classes)

    @functools.cached_property
    def trained_variables(self) -> list[keras.Variable]:
        """The variables that its optimizer updates."""
        variables = list(self.model.head.trainable_variables)
        return list(self.model.extractor.trainable_variables) + variables if self._owns_trained else variables

    @functools.cached_property
    def averages(self) -> Averages:
        """The running averages of `trained_variables`, created when they are first asked for."""
        return Averages(self.ema, self.trained_variables)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that training changes but the averages: weights, batch norm, dropout seeds, optimizer."""
        backbone = self.model.extractor.variables if self._owns_trained else []
        return backbone + self.model.head.variables + self.optimizer.variables

    @property
    def _owns_trained(self) -> bool:
        return self.trainable and not self.shares_extractor
