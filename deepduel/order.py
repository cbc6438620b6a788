"""The order of records: a pure function of (seed, epoch)."""

from deepduel.reading.order import Position, Worker, epoch_word, image_seeds, permutation, steps_per_epoch

__all__ = ["Position", "Worker", "epoch_word", "image_seeds", "permutation", "steps_per_epoch"]
