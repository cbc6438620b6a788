"""Shards to tf.data batches for anyone's `model.fit`."""

from deepduel.reading.pipeline import make_eval, make_train

__all__ = ["make_eval", "make_train"]
