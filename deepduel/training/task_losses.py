"""What a task's loss compares its logits with: labels -> soft targets and weights.

    labels int [B] (-1 for none), weight float [B] --Objective.targets--> Targets --losses--> float32 [B]

The loss of a batch is the weighted mean of its images' cross-entropies: images without a label,
padding and records that cannot be decoded have weight 0.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deepduel.augmentation import mixing
from tfrecords_tools.errors import UsageError


class Targets(NamedTuple):
    """The targets of a batch.

    Attributes:
      soft: float32 [B, classes], rows that sum to 1.
      weight: float32 [B], weight in the loss, class weights included.
      label: int32 [B], for metrics; of two mixed images the label of the larger share.
      counts: float32 [B], weight in metrics: 1, or less where only a share of a mixed image is labelled.
    """

    soft: tf.Tensor
    weight: tf.Tensor
    label: tf.Tensor
    counts: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Objective:
    """How labels become targets in training; validation uses `Objective()`.

    Attributes:
      label_smoothing: share of each target that is spread evenly over all classes, 0 <= share < 1.
      class_weights: one factor per class, > 0; empty for 1 each.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing must be from 0 to below 1, got {self.label_smoothing}")

    def targets(self, labels: tf.Tensor, weight: tf.Tensor, mix: mixing.Mix | None, classes: int) -> Targets:
        """The targets of a batch.

        Args:
          labels: int32 [B], -1 for none.
          weight: float32 [B], 0 for padding and records that cannot be decoded.
          mix: how images are mixed; None for not at all.
          classes: how many there are.
        """
        parts = mixing.shares(labels, weight, mix)
        soft = tf.constant(0.0)
        total = tf.constant(0.0)
        for label, share in parts:
            if self.class_weights:
                share = share * tf.gather(tf.constant(self.class_weights, tf.float32), label)
            soft += tf.one_hot(label, classes) * share[:, None]
            total += share
        soft = tf.where(total[:, None] > 0, tf.math.divide_no_nan(soft, total[:, None]), 1 / classes)
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / classes
        label, counts = mixing.larger_share(parts)
        return Targets(soft, total, label, counts)


def losses(targets: Targets, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of each image, float32 [B], not weighted; logits float32 [B, classes]."""
    return tf.nn.softmax_cross_entropy_with_logits(targets.soft, logits)


def class_weights(text: str, labels: np.ndarray, names: tuple[str, ...]) -> tuple[float, ...]:
    """One weight per class, from "none" (no weights at all), "balanced" or "NAME=2,OTHER=1".

    Args:
      labels: int [N] of the training split, -1 for none. Balanced weights are images / (classes * images of
        the class): every class has the same total weight, and the mean weight is 1.
      names: of the classes.

    Raises:
      UsageError: the text names no class or gives no number above 0.
    """
    if text == "none":
        return ()
    if text == "balanced":
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
        return tuple(float(counts.sum() / (len(names) * count)) if count else 1.0 for count in counts)
    weights = dict.fromkeys(names, 1.0)
    for entry in text.split(","):
        name, _, value = entry.rpartition("=")
        if name not in weights:
            raise UsageError(
                f"class_weights={text}: {name or entry!r} is not a label ({', '.join(names)}); write none, "
                "balanced or NAME=2,OTHER=0.5, for one task TASK=NAME=2"
            )
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = 0.0
        if not 0 < weights[name] < float("inf"):
            raise UsageError(f"class_weights={text}: the weight of {name} must be above 0, got {value!r}")
    return tuple(weights.values())
