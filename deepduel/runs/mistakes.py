"""Pictures of a validation that has just run: the confusion matrix, the most confident mistakes."""

import numpy as np

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.split import Split
from deepduel.reading.options import ReadOptions
from deepduel.runs import pictures
from tfrecords_tools.format import records as record_format

_SHOWN = 12
_CLASSES = 20  # that a picture of a confusion matrix has room for

Validation = list[tuple[np.ndarray, dict[str, np.ndarray]]]


class Mistakes:
    """Draws the pictures of one validation split.

    `validation` is that of `Progress`: (records int64 [B], {task: logits float32 [B, classes]}) of each
    batch; padding has record number -1.
    """

    def __init__(self, split: Split, reading: ReadOptions):
        self._split = split
        self._decode = BatchDecoder(split, reading.decoding(split), threads=1, on_error="skip")

    def confusion(self, validation: Validation, axis: str, names: tuple[str, ...]) -> np.ndarray:
        """A picture of the confusion matrix, uint8 [1, H, W, 3]; `names` are those of the classes.

        Of many classes it has those with the most mistakes.
        """
        _, labels, logits = self._labelled(validation, axis)
        counts = np.zeros((len(names), len(names)), np.int64)
        np.add.at(counts, (labels, logits.argmax(1)), 1)
        if len(names) > _CLASSES:
            mistakes = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
            chosen = np.sort(np.argsort(-mistakes, kind="stable")[:_CLASSES])
            shown = tuple(names[number] for number in chosen.tolist())
            return pictures.confusion(counts[np.ix_(chosen, chosen)], shown, counts[chosen].sum(1))
        return pictures.confusion(counts, names, counts.sum(1))

    def worst(self, validation: Validation, axis: str, names: tuple[str, ...]) -> np.ndarray | None:
        """The wrong predictions of highest probability, with labels and keys; None when all are right."""
        records, labels, logits = self._labelled(validation, axis)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        predicted = probabilities.argmax(1)
        wrong = np.flatnonzero(predicted != labels)
        if not len(wrong):
            return None
        confidence = probabilities[np.arange(len(predicted)), predicted]
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:_SHOWN]
        captions = [
            (
                names[labels[number]],
                f"predicted {names[predicted[number]]} {confidence[number]:.1%}",
                record_format.key_text(self._split.key(int(records[number]))),
            )
            for number in wrong.tolist()
        ]
        return pictures.captioned(self._decode(records[wrong]).copy(), captions)

    def _labelled(self, validation: Validation, axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(records, labels, logits) of the images that have a label and finite logits."""
        records = np.concatenate([records for records, _ in validation])
        logits = np.concatenate([logits[axis] for _, logits in validation])
        labels = np.where(records >= 0, self._split.labels[axis][np.maximum(records, 0)], -1)
        bad = np.isin(records, list(self._split.bad))
        known = (labels >= 0) & ~bad & np.isfinite(logits).all(axis=1)
        return records[known], labels[known], logits[known].astype(np.float64)
