"""What is measured of one task: its mean loss, its accuracy, its AUC and its skipped steps."""

import keras
import tensorflow as tf

from deepduel.training.running_auc import RunningAUC
from deepduel.training.task import Task
from deepduel.training.task_losses import Targets, losses


class TaskMetrics:
    """The metrics of one task, which run over an epoch.

    Attributes:
      loss, accuracy, auc: of training or of validation, whichever runs.
      skipped: counts training steps without an update, see `update_skipped`.
    """

    def __init__(self, task: Task):
        self.loss = keras.metrics.Mean(f"{task.name}_loss")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(f"{task.name}_accuracy")
        self.auc = RunningAUC(task.classes, f"{task.name}_auc")
        self.skipped = keras.metrics.Sum(f"{task.name}_skipped_steps")

    @property
    def quality(self) -> list[keras.metrics.Metric]:
        """The metrics that validation has too."""
        return [self.loss, self.accuracy, self.auc]

    @property
    def skipped_steps(self) -> int:
        """Steps of the current epoch whose loss or gradient was not finite."""
        return int(self.skipped.result())

    def update(self, targets: Targets, logits: tf.Tensor, finite: tf.Tensor | bool = True) -> None:
        """Counts a batch; images whose loss is not finite are left out.

        Args:
          targets: of the batch.
          logits: float32 [B, classes].
          finite: bool scalar; a batch whose step was skipped does not count.
        """
        loss = losses(targets, logits)
        known = tf.cast(finite & tf.math.is_finite(loss), tf.float32)
        self.loss.update_state(tf.where(known > 0, loss, 0.0), targets.weight * known)
        self.accuracy.update_state(targets.label, logits, targets.counts * known)
        self.auc.update_state(targets.label, logits, targets.counts * known)

    def update_skipped(self, finite: tf.Tensor) -> None:
        """Counts a training step as skipped unless its loss and gradients are finite (bool scalar).

        A loss scale that was too high does not count either, see updates.scale_overflowed.
        """
        self.skipped.update_state(tf.where(finite, 0.0, 1.0))
