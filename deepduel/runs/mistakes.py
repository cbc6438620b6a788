"""What a validation that has just run says image by image: the confusion matrix, the worst mistakes."""

import numpy as np

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.split import Split
from deepduel.reading.options import ReadOptions
from deepduel.runs import pictures
from tfrecords_tools.format import records as record_format

_SHOWN = 12


class Mistakes:
    """Of one validation split.

    `validated` is Duel.validated: (records [B], {task: logits [B, classes]}) per batch; padding is record -1.
    """

    def __init__(self, split: Split, reading: ReadOptions):
        self._split = split
        self._decode = BatchDecoder(split, reading.decoding(split), threads=1, on_error="skip")

    def confusion(self, validated, axis: str, names: tuple[str, ...]) -> np.ndarray:
        """A picture, uint8 [1, H, W, 3]."""
        _, labels, logits = self._labelled(validated, axis)
        counts = np.zeros((len(names), len(names)), np.int64)
        np.add.at(counts, (labels, logits.argmax(1)), 1)
        return pictures.confusion(counts, names)

    def worst(self, validated, axis: str, names: tuple[str, ...]) -> np.ndarray | None:
        """The images that were called wrongly most surely, with labels and keys; None when all are right."""
        records, labels, logits = self._labelled(validated, axis)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        called = probabilities.argmax(1)
        wrong = np.flatnonzero(called != labels)
        if not len(wrong):
            return None
        sureness = probabilities[np.arange(len(called)), called]
        wrong = wrong[np.argsort(-sureness[wrong], kind="stable")][:_SHOWN]
        captions = [
            (
                names[labels[number]],
                f"called {names[called[number]]} {sureness[number]:.1%}",
                record_format.key_text(self._split.key(int(records[number]))),
            )
            for number in wrong.tolist()
        ]
        return pictures.captioned(self._decode(records[wrong]).copy(), captions)

    def _labelled(self, validated, axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(records, labels, logits) of the images that have a label and finite logits."""
        records = np.concatenate([records for records, _ in validated])
        logits = np.concatenate([logits[axis] for _, logits in validated])
        labels = np.where(records >= 0, self._split.labels[axis][np.maximum(records, 0)], -1)
        bad = np.isin(records, list(self._split.bad))
        known = (labels >= 0) & ~bad & np.isfinite(logits).all(axis=1)
        return records[known], labels[known], logits[known].astype(np.float64)
