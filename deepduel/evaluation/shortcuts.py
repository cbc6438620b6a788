"""How well the labels can be predicted without the content of the images.

A data set whose fakes are larger files, or were saved by another program, lets a network score well for
the wrong reason. A logistic regression on such features alone, the baseline, measures how well:

    file size       bytes, bytes per pixel
    image size      height, width, their ratio, and which of the most common sizes it is
    JPEG tables     quantisation tables (mean, first entries, which of the most common), chroma subsampling
    mean colour     mean and standard deviation of each channel

The baseline's balanced accuracy comes from five-fold cross-validation within the evaluated images.
"""

import collections
import hashlib
import io
import warnings

import numpy as np
import threadpoolctl
from PIL import JpegImagePlugin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deepduel.decoding.split import Split
from deepduel.evaluation import metrics

GROUPS = ("file size", "image size", "JPEG tables", "mean colour")
CLOSE = 0.05  # balanced accuracy; a model that beats the baseline by less may rely on the same features
_FOLDS = 5
_MOST_COMMON = 8
_HEAD_BYTES = 1 << 16  # the tables are in the first bytes of a JPEG
_MOST_IMAGES = 20_000  # more make the baseline slower, but hardly more accurate


def features(split: Split, numbers: np.ndarray, colours: np.ndarray) -> dict[str, np.ndarray]:
    """{group of `GROUPS`: features, float [len(numbers), …]}.

    Args:
      numbers: int [n], records of the split.
      colours: float [n, 6], mean and standard deviation of each channel, 0..255.
    """
    sizes = split.sizes[numbers].astype(float)
    stored, tables = np.empty(len(numbers)), []
    for place, number in enumerate(numbers.tolist()):  # one image in memory at a time
        image = split.image(number)
        stored[place] = len(image)
        tables.append(jpeg_tables(image[:_HEAD_BYTES]))
    coded = np.array(
        [[*table[:8], table.mean() if len(table) else 0.0, sampling] for table, sampling in tables]
    )
    digests = [hashlib.blake2b(table.tobytes(), digest_size=8).hexdigest() for table, _ in tables]
    return {
        "file size": np.stack([np.log(stored), stored / sizes.prod(1)], 1),
        "image size": np.hstack(
            [
                np.log(sizes),
                np.log(sizes[:, :1] / sizes[:, 1:]),
                _most_common(list(map(tuple, sizes.tolist()))),
            ]
        ),
        "JPEG tables": np.hstack([coded, _most_common(digests)]),
        "mean colour": colours,
    }


def jpeg_tables(head: bytes) -> tuple[np.ndarray, int]:
    """Quantisation tables and chroma subsampling of a JPEG; (64 zeros, -1) for other bytes.

    Args:
      head: the beginning of the file, up to its first scan.

    Returns:
      The tables one after the other, float [64 per table], and 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0 or -1.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # damaged Exif data do not matter here
            opened = JpegImagePlugin.JpegImageFile(io.BytesIO(head))
    except (OSError, SyntaxError):  # Pillow raises SyntaxError for files of another format
        return np.zeros(64), -1
    tables = [table for _, table in sorted(opened.quantization.items())]
    return np.array(tables or np.zeros(64), float).reshape(-1), JpegImagePlugin.get_sampling(opened)


def _most_common(values: list) -> np.ndarray:
    """One column for each of the most common values: 1.0 where an image has it."""
    columns = [value for value, _ in collections.Counter(values).most_common(_MOST_COMMON)]
    return np.array([[float(value == column) for column in columns] for value in values])


def document(
    split: Split, known: np.ndarray, labels: np.ndarray, colours: np.ndarray, accuracy: float
) -> dict:
    """The "shortcuts" of a task in metrics.json.

    Args:
      known: bool [records of the split], which of them have a label.
      labels: int [labelled records], their labels.
      colours: float [records of the split, 6], see `features`.
      accuracy: balanced accuracy of the model, 0..1.

    Returns:
      {"images", "chance", "balanced_accuracy": {group: …, "all": …} of the baseline, "model": `accuracy`,
       "alarm": whether the baseline is better than chance and the model hardly better than the baseline},
      or {"note": the reason why there is no baseline}.
    """
    numbers = np.flatnonzero(known)
    if len(numbers) > _MOST_IMAGES:
        picked = np.linspace(0, len(numbers) - 1, _MOST_IMAGES).astype(int)
        numbers, labels = numbers[picked], labels[picked]
    counts = np.bincount(labels)
    classes = np.flatnonzero(counts)
    if len(classes) < 2 or counts[classes].min() < 2 * _FOLDS:
        return {"note": f"no baseline: it needs {2 * _FOLDS} images of each class and two classes"}
    groups = features(split, numbers, colours[numbers])
    chance = 1 / len(classes)
    baselines = {name: _cross_validated(values, labels) for name, values in groups.items()}
    baselines["all"] = _cross_validated(np.hstack(list(groups.values())), labels)
    best = max(baselines.values())
    return {
        "images": len(numbers),
        "chance": chance,
        "balanced_accuracy": baselines,
        "model": accuracy,
        "alarm": bool(best > chance + CLOSE and accuracy < best + CLOSE),
    }


def _cross_validated(values: np.ndarray, labels: np.ndarray) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, class_weight="balanced"))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    with threadpoolctl.threadpool_limits(
        1
    ):  # for matrices this small, threads of BLAS cost more time than they save
        predicted = cross_val_predict(model, values, labels, cv=folds)
    return float(np.nanmean(metrics.recalls(labels, predicted, labels.max() + 1)))
