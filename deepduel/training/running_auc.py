"""Area under the ROC curve of a running epoch, in constant memory."""

import keras
import tensorflow as tf

_BINS = 1024
_LARGEST = 16.0  # log-odds; beyond it all predictions count as equally confident


class RunningAUC(keras.metrics.Metric):
    """AUC of labels against log-odds, from two histograms per class.

    With two classes it is the AUC of the second one, with more the mean over the classes, each against the
    rest. The log-odds are binned, and not the probabilities as in keras.metrics.AUC, whose 200 bins lump
    together everything that a confident network predicts. Images in one bin count as ties. The result is NaN
    where no class has images on both sides.
    """

    def __init__(self, classes: int, name: str):
        super().__init__(name=name)
        self._classes = classes
        self._columns = 1 if classes == 2 else classes
        shape = (2, self._columns, _BINS)
        self.counts = self.add_variable(shape, initializer="zeros", dtype="float32", name="counts")

    def update_state(self, labels: tf.Tensor, logits: tf.Tensor, weight: tf.Tensor) -> None:
        """Adds labels int [B], logits float32 [B, classes], weight float32 [B]; only finite logits count."""
        finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
        weight = tf.where(finite, weight, 0.0)
        probability = tf.nn.log_softmax(tf.where(finite[:, None], logits, 0.0))
        others = [
            tf.reduce_logsumexp(tf.concat([probability[:, :c], probability[:, c + 1 :]], axis=1), axis=1)
            for c in range(self._classes)
        ]
        odds = probability - tf.stack(others, axis=1)
        first = self._classes - self._columns  # two classes: the second alone
        odds = tf.clip_by_value(odds[:, first:], -_LARGEST, _LARGEST)
        bins = tf.cast((odds + _LARGEST) / (2 * _LARGEST) * (_BINS - 1), tf.int32)
        positive = tf.cast(labels[:, None] == tf.range(first, self._classes, dtype=labels.dtype), tf.int32)
        bin_number = (positive * self._columns + tf.range(self._columns)) * _BINS + bins
        weights = tf.broadcast_to(weight[:, None], tf.shape(bin_number))
        added = tf.math.unsorted_segment_sum(
            tf.reshape(weights, [-1]), tf.reshape(bin_number, [-1]), 2 * self._columns * _BINS
        )
        self.counts.assign_add(tf.reshape(added, self.counts.shape))

    def result(self) -> tf.Tensor:
        counts = tf.convert_to_tensor(self.counts)
        negative, positive = counts[0], counts[1]
        below = tf.cumsum(negative, axis=1, exclusive=True)
        won = tf.reduce_sum(positive * (below + negative / 2), axis=1)
        pairs = tf.reduce_sum(negative, axis=1) * tf.reduce_sum(positive, axis=1)
        known = tf.cast(pairs > 0, tf.float32)
        return tf.reduce_sum(tf.math.divide_no_nan(won, pairs)) / tf.reduce_sum(known)

    def reset_state(self) -> None:
        self.counts.assign(tf.zeros(self.counts.shape))
