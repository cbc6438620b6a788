"""One label axis that is learnt: its networks, and how its images and labels become a loss."""

import dataclasses
import functools

import keras

from deepduel.augmentation.options import Augmentation, Mixing
from deepduel.networks.task_model import TaskModel
from deepduel.training.task_losses import Objective
from deepduel.training.weight_averages import Averages


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained for one label axis.

    Attributes:
      name: the label axis.
      model: its networks. Tasks whose models have the same extractor share it.
      augmentation: of its training images.
      optimizer: its own; one that scales the loss where the backbone is trained in float16.
      mixing: of its training images with one another.
      objective: how its labels become targets.
      average: decay of the running averages of its weights, 0 <= decay < 1; 0: none.
      clip_norm: that its gradients are shortened to, together; 0: any length.
      monitor: of validation, "accuracy", "auc" or "loss": decides which epoch is the best.
      patience: epochs without a better one after which it stops; 0: it never does.
      borrows: whether its extractor is an earlier task's, which trains and keeps it.
    """

    name: str
    model: TaskModel
    augmentation: Augmentation
    optimizer: keras.optimizers.Optimizer
    mixing: Mixing = Mixing()
    objective: Objective = Objective()
    average: float = 0.0
    clip_norm: float = 0.0
    monitor: str = "accuracy"
    patience: int = 0
    borrows: bool = False

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
        return self.model.architecture.image_size

    @property
    def classes(self) -> int:
        return len(self.model.classes)

    @functools.cached_property
    def trained_variables(self) -> list[keras.Variable]:
        """The variables that its optimizer changes."""
        variables = list(self.model.head.trainable_variables)
        owns = self.trainable and not self.borrows
        return list(self.model.extractor.trainable_variables) + variables if owns else variables

    @functools.cached_property
    def averages(self) -> Averages:
        return Averages(self.average, self.trained_variables)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that training changes, but for averages: weights, batch norm, dropout seeds, optimizer."""
        backbone = self.model.extractor.variables if self.trainable and not self.borrows else []
        return backbone + self.model.head.variables + self.optimizer.variables
