"""Images for the report: mistakes, and the surest and least sure predictions, some with heat maps.

A gallery is {"title", "note", "command", "images"}, an image {"key", "truth", "predicted", "probability",
"picture", "heat"}. Pictures are data: URLs of JPEGs, "" beyond the number that keeps the page small; "heat"
is the image under a Grad-CAM heat map, or None.
"""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.split import Split
from deepduel.evaluation.predictions import Predictions
from deepduel.prediction.predictor import Predictor
from deepduel.reports import thumbnail
from deepduel.reports.confusion_matrix import ConfusedPair
from deepduel.reports.thumbnail import data_url
from tfrecords_tools.format import records
from tfrecords_tools.progress import counted

SHOWN = 12  # images per gallery of extremes
EXPLAINED = 6  # mistakes with a Grad-CAM heat map
PICTURED = 400  # mistakes, and surest predictions, with a picture: about 1.5 MB
LISTED = 5000  # mistakes that are listed at all
PER_PAIR = 4  # examples of a pair of classes
_EXCLUDING = "deepduel convert --input_dir=IMAGES --output_dir=SHARDS --exclude=@doubted_labels.csv"
_DECODED = 64  # images in memory at once


def galleries(
    predictions: Predictions, predictor: Predictor, axis: str, doubted: np.ndarray | None = None
) -> list[dict]:
    """The galleries of a task: doubted labels, all mistakes, the surest of each class, and the least sure.

    Args:
      doubted: records whose label is doubted, see `label_check.doubted`; None without a check of labels.
    """
    labels, probabilities = predictions.labels[axis], predictions.probabilities[axis]
    known = np.flatnonzero(labels >= 0)
    confidence = probabilities[known].max(1)
    correct = probabilities[known].argmax(1) == labels[known]
    down, up = np.argsort(-confidence, kind="stable"), np.argsort(confidence, kind="stable")
    mistakes, right = known[down[~correct[down]]], known[down[correct[down]]]
    surest = _surest(right, labels, len(predictions.classes[axis]))
    note = ""
    if len(mistakes) > PICTURED:
        note = f"{len(mistakes):,} mistakes, the most confident {PICTURED} with pictures."
    if len(mistakes) > LISTED:
        note = (
            f"The most confident {LISTED:,} of {len(mistakes):,} mistakes; predictions.csv has all of them."
        )
    doubts = doubted if doubted is not None else known[:0]
    chosen = (
        ("Labels that may be wrong, most doubtful first", _about_doubts(len(doubts)), doubts, 0),
        ("Mistakes, most confident first", note, mistakes, EXPLAINED),
        ("Most confident correct predictions by class", "", surest, 0),
        ("Least confident predictions", "", known[up[:SHOWN]], 0),
    )
    return [
        {
            "title": title,
            "note": note,
            "command": _EXCLUDING if numbers is doubts else "",
            "images": _images(predictions, predictor, axis, numbers[:LISTED], explained),
        }
        for title, note, numbers, explained in chosen
        if len(numbers)
    ]


def examples(
    predictions: Predictions, predictor: Predictor, axis: str, pairs: Iterable[ConfusedPair]
) -> dict[tuple[int, int], list[dict]]:
    """The most confident mistakes of each pair of true and predicted class: images of a gallery."""
    labels, probabilities = predictions.labels[axis], predictions.probabilities[axis]
    predicted = probabilities.argmax(1)
    shown = {}
    for pair in pairs:
        numbers = np.flatnonzero((labels == pair.truth) & (predicted == pair.predicted))
        numbers = numbers[np.argsort(-probabilities[numbers, pair.predicted], kind="stable")][:PER_PAIR]
        shown[pair.truth, pair.predicted] = _images(predictions, predictor, axis, numbers, 0)
    return shown


def _about_doubts(count: int) -> str:
    return (
        f"{counted(count, 'label')} that confident learning (cleanlab) doubts; doubted_labels.csv lists "
        "them. Delete its rows of labels that are right, and convert again without the other images:"
    )


def _surest(right: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The first few of each class among `right`, by class; fewer of each where there are many classes."""
    each = max(1, min(SHOWN // 2, 120 // classes))
    chosen = [right[labels[right] == number][:each] for number in range(classes)]
    return np.concatenate(chosen)[:PICTURED]


def _images(
    predictions: Predictions, predictor: Predictor, axis: str, numbers: np.ndarray, explained: int
) -> list[dict]:
    """The images of a gallery; the first `explained` with a heat map, the first `PICTURED` with a picture."""
    names = predictions.classes[axis]
    side = thumbnail.SIDE if len(numbers) <= SHOWN else thumbnail.SMALL_SIDE
    decode = BatchDecoder(predictions.split, predictor.decoding)
    images = []
    for start in range(0, len(numbers), _DECODED):
        chunk = numbers[start : start + _DECODED]
        pictured = chunk[: max(0, PICTURED - start)]
        pixels = decode(pictured).copy()
        heats = _heats(predictor, axis, pixels[:explained]) if explained and not start else []
        for position, number in enumerate(chunk.tolist()):
            values = predictions.probabilities[axis][number]
            images.append({
                "key": records.key_text(predictions.split.key(number)),
                "truth": names[int(predictions.labels[axis][number])],
                "predicted": names[int(values.argmax())],
                "probability": float(values.max()),
                "picture": data_url(pixels[position], side) if position < len(pixels) else "",
                "heat": data_url(heats[position], side) if position < len(heats) else None,
            })  # fmt: skip
    return images


def _heats(predictor: Predictor, axis: str, pixels: np.ndarray) -> list[np.ndarray]:
    """The images under their heat maps; [] for a model that has none."""
    maps = grad_cam(predictor.models[axis], predictor.inputs(pixels, axis))
    return [] if maps is None else [overlay(*pair) for pair in zip(pixels, maps, strict=True)]


def pairs(duplicates: list[tuple[tuple[Split, int], tuple[Split, int]]]) -> list[list[dict]]:
    """Pictures of near duplicates, see `duplicates.Duplicates`: [[{"split", "key", "picture"}, {…}]]."""
    return [
        [
            {
                "split": split.name,
                "key": records.key_text(split.key(record)),
                "picture": data_url(split.pixels(record)),
            }
            for split, record in pair
        ]
        for pair in duplicates[:SHOWN]
    ]


def grad_cam(model: keras.Model, inputs: tf.Tensor) -> np.ndarray | None:
    """Heat maps of what decided for the predicted class: float32 [N, h, w], 0..1.

    Grad-CAM (Selvaraju et al. 2017) at the backbone's last feature maps. None for a model that is
    not built as `task_model.build` builds: backbone, pooling, head.
    """
    try:
        extractor, head = (part for part in model.layers if isinstance(part, keras.Model))
        pooling = extractor.layers[-1]
        maps_model = keras.Model(extractor.inputs[0], pooling.input)
    except (ValueError, AttributeError, IndexError):
        return None
    if len(pooling.input.shape) != 4:
        return None
    maps = maps_model(inputs, training=False)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = head(tf.cast(pooling(maps), tf.float32), training=False)
        chosen = tf.reduce_sum(tf.reduce_max(logits, axis=1))
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1))
    return (
        tf.math.divide_no_nan(heat, tf.reduce_max(heat, axis=(1, 2), keepdims=True))
        .numpy()
        .astype(np.float32)
    )


_STOPS = np.linspace(0, 255, 9)  # heat values of the colours below
_INFERNO = np.array(  # matplotlib's "inferno", RGB
    [
        [0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [228, 90, 49], [249, 142, 9],
        [249, 203, 53], [252, 255, 164],
    ]
)  # fmt: skip


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Paints heat [h, w] 0..1 over the greyscale image: uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    height, width = pixels.shape[:2]
    enlarged = Image.fromarray((heat * 255).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    colours = np.stack([np.interp(np.asarray(enlarged), _STOPS, channel) for channel in _INFERNO.T], axis=-1)
    gray = np.asarray(Image.fromarray(pixels).convert("L"), float)[..., None]
    return (0.45 * gray + 0.55 * colours).clip(0, 255).astype(np.uint8)
