"""What a task's loss compares its logits with: labels -> soft targets and weights.

    labels int [B] (-1 for none), weight float [B] --Objective.targets--> Targets --losses--> float32 [B]

The loss of a batch is the weighted mean of its images' cross-entropies: images without a label,
padding and records that do not decode have weight 0.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deepduel.augmentation import mixing
from tfrecords_tools.errors import UsageError


class Targets(NamedTuple):
    """Of a batch; all [B, …].

    Attributes:
      soft: float32 [B, classes], rows that sum to 1.
      weight: float32 [B], of the loss: class weights included.
      label: int32 [B], for metrics; of a mix of two images that of the larger share.
      counts: float32 [B], 1 for images that metrics count, less where only a share is labelled.
    """

    soft: tf.Tensor
    weight: tf.Tensor
    label: tf.Tensor
    counts: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Objective:
    """How labels become targets in training; validation uses `Objective()`.

    Attributes:
      label_smoothing: this share of each target is spread evenly over all classes, 0 <= share < 1.
      class_weights: one factor per class, > 0; empty: 1 each.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing must be from 0 to below 1, got {self.label_smoothing}")

    def targets(self, labels: tf.Tensor, weight: tf.Tensor, mix: mixing.Mix | None, classes: int) -> Targets:
        parts = mixing.shares(labels, weight, mix)
        soft, total = 0.0, 0.0
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
    """Cross-entropy per image, float32 [B], not yet weighted."""
    return tf.nn.softmax_cross_entropy_with_logits(targets.soft, logits)


def class_weights(text: str, labels: np.ndarray, names: tuple[str, ...]) -> tuple[float, ...]:
    """ "none", "balanced" or "NAME=2,OTHER=1" -> one weight per class.

    Args:
      labels: of the training split, -1 for none. Balanced weights are images / (classes * images of
        the class), so that every class has the same say and the mean weight is 1.
      names: of the classes.
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
                f"--class_weights={text}: {name or entry!r} is not a label ({', '.join(names)}); write none, "
                "balanced or NAME=2,OTHER=0.5, for one task TASK=NAME=2"
            )
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = 0.0
        if not 0 < weights[name] < float("inf"):
            raise UsageError(f"--class_weights={text}: {value!r} is not a number above 0")
    return tuple(weights.values())
