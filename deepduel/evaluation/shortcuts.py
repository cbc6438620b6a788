"""What gives the labels away without looking at the picture.

A data set whose fakes are larger files, or were saved by another program, lets a network score
well for the wrong reason. A logistic regression that sees only such traces says how far they go:

    file size       bytes, bytes per pixel
    image size      height, width, their ratio, the commonest sizes
    JPEG tables     quantisation tables (mean, first entries, the commonest ones), colour subsampling
    mean colour     mean and spread of each channel

Scores are out of five-fold cross-validation within the evaluated images.
"""

import collections
import hashlib
import struct

import numpy as np
import threadpoolctl
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deepduel.decoding.split import Split
from deepduel.evaluation import metrics

GROUPS = ("file size", "image size", "JPEG tables", "mean colour")
CLOSE = 0.05  # balanced accuracy: a model that beats the baseline by less may be living on it
_FOLDS = 5
_COMMONEST = 8
_HEAD_BYTES = 1 << 16  # of a JPEG, where its tables lie
_MOST_IMAGES = 20_000  # more would only make the baseline slower


def features(split: Split, numbers: np.ndarray, colours: np.ndarray) -> dict[str, np.ndarray]:
    """Per group of traces, float [len(numbers), …].

    Args:
      numbers: records of the split.
      colours: float [len(numbers), 6]: mean and standard deviation of each channel.
    """
    sizes = split.sizes[numbers].astype(float)
    images = [split.image(number) for number in numbers.tolist()]
    stored = np.array([len(image) for image in images], float)
    tables = [jpeg_tables(bytes(image[:_HEAD_BYTES])) for image in images]
    coded = np.array(
        [[*table[:8], table.mean() if len(table) else 0.0, sampling] for table, sampling in tables]
    )
    names = [hashlib.blake2b(table.tobytes(), digest_size=8).hexdigest() for table, _ in tables]
    return {
        "file size": np.stack([np.log(stored), stored / sizes.prod(1)], 1),
        "image size": np.hstack(
            [np.log(sizes), np.log(sizes[:, :1] / sizes[:, 1:]), _commonest(list(map(tuple, sizes.tolist())))]
        ),
        "JPEG tables": np.hstack([coded, _commonest(names)]),
        "mean colour": colours,
    }


def jpeg_tables(head: bytes) -> tuple[np.ndarray, int]:
    """Quantisation tables and the luminance sampling factors byte of a JPEG; (64 zeros, 0) for others.

    Args:
      head: the file's beginning. Segments as in ITU-T T.81, annex B: DQT (FFDB), SOF (FFC0-FFC2).
    """
    tables, sampling, position = [], 0, 2
    while head[:2] == b"\xff\xd8" and position + 4 <= len(head) and head[position] == 0xFF:
        kind, (length,) = head[position + 1], struct.unpack_from(">H", head, position + 2)
        body = head[position + 4 : position + 2 + length]
        if kind == 0xDB:
            while len(body) >= 65:
                wide = body[0] >> 4
                size = 128 if wide else 64
                if len(body) <= size:
                    break
                tables.append(np.frombuffer(body[1 : 1 + size], ">u2" if wide else np.uint8).astype(float))
                body = body[1 + size :]
        elif kind in (0xC0, 0xC1, 0xC2) and len(body) > 7:
            sampling = body[7]
        elif kind == 0xDA:
            break
        position += 2 + length
    return (np.concatenate(tables) if tables else np.zeros(64)), sampling


def _commonest(values: list) -> np.ndarray:
    """One column for each of the commonest values: 1.0 where an image has it."""
    columns = [value for value, _ in collections.Counter(values).most_common(_COMMONEST)]
    return np.array([[float(value == column) for column in columns] for value in values])


def document(
    split: Split, known: np.ndarray, labels: np.ndarray, colours: np.ndarray, accuracy: float
) -> dict:
    """The "shortcuts" of a task in metrics.json.

    Args:
      known: bool [records of the split]: which have a label.
      labels: int [known]: theirs.
      colours: float [records, 6].
      accuracy: the model's balanced accuracy.

    Returns:
      {"images", "chance", "balanced_accuracy": {group: …, "all": …}, "model", "alarm": bool},
      or {"note": why there is no baseline}.
    """
    numbers = np.flatnonzero(known)
    if len(numbers) > _MOST_IMAGES:
        picked = np.linspace(0, len(numbers) - 1, _MOST_IMAGES).astype(int)
        numbers, labels = numbers[picked], labels[picked]
    counts = np.bincount(labels)
    if len(counts[counts > 0]) < 2 or counts[counts > 0].min() < 2 * _FOLDS:
        return {"note": f"no baseline: it needs {2 * _FOLDS} images of each class and two classes"}
    groups = features(split, numbers, colours[numbers])
    chance = 1 / len(counts[counts > 0])
    found = {name: _cross_validated(values, labels) for name, values in groups.items()}
    found["all"] = _cross_validated(np.hstack(list(groups.values())), labels)
    best = max(found.values())
    return {
        "images": len(numbers),
        "chance": chance,
        "balanced_accuracy": found,
        "model": accuracy,
        "alarm": bool(best > chance + CLOSE and accuracy < best + CLOSE),
    }


def _cross_validated(values: np.ndarray, labels: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, class_weight="balanced"))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    with threadpoolctl.threadpool_limits(1):  # matrices this small only lose time to BLAS' threads
        predicted = cross_val_predict(model, values, labels, cv=folds)
    return float(np.nanmean(metrics.recalls(labels, predicted, labels.max() + 1)))
