"""Images for the report: most and least confident predictions, with heat maps of what decided them.

A gallery is {"title", "images": [{"key", "truth", "predicted", "probability", "picture", "heat"}]},
with pictures as data: URLs of JPEGs; "heat" is the image under a Grad-CAM heat map, or None.
"""

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.split import Split
from deepduel.evaluation.predictions import Predictions
from deepduel.prediction.predictor import Predictor
from deepduel.reports.thumbnail import data_url
from tfrecords_tools.format import records

SHOWN = 12  # images per gallery
EXPLAINED = 6  # images per gallery with a Grad-CAM heat map


def galleries(predictions: Predictions, predictor: Predictor, axis: str) -> list[dict]:
    """The galleries of a task."""
    labels, probabilities = predictions.labels[axis], predictions.probabilities[axis]
    known = np.flatnonzero(labels >= 0)
    confidence = probabilities[known].max(1)
    correct = probabilities[known].argmax(1) == labels[known]
    down, up = np.argsort(-confidence, kind="stable"), np.argsort(confidence, kind="stable")
    chosen = (
        ("Most confident mistakes", known[down[~correct[down]]], EXPLAINED),
        ("Most confident correct predictions", known[down[correct[down]]], 0),
        ("Least confident predictions", known[up], 0),
    )
    return [
        {"title": title, "images": _images(predictions, predictor, axis, numbers[:SHOWN], explained)}
        for title, numbers, explained in chosen
        if len(numbers)
    ]


def _images(
    predictions: Predictions, predictor: Predictor, axis: str, numbers: np.ndarray, explained: int
) -> list[dict]:
    split, names = predictions.split, predictions.classes[axis]
    pixels = BatchDecoder(split, predictor.decoding)(numbers).copy()
    heats: list[np.ndarray | None] = [None] * len(numbers)
    if explained:
        inputs = predictor.inputs(pixels[:explained], axis)
        maps = grad_cam(predictor.models[axis], inputs)
        if maps is not None:
            heats[: len(maps)] = [overlay(*pair) for pair in zip(pixels, maps, strict=False)]
    images = []
    for position, number in enumerate(numbers.tolist()):
        values, heat = predictions.probabilities[axis][number], heats[position]
        images.append({
            "key": records.key_text(split.key(number)),
            "truth": names[int(predictions.labels[axis][number])],
            "predicted": names[int(values.argmax())],
            "probability": float(values.max()),
            "picture": data_url(pixels[position]),
            "heat": None if heat is None else data_url(heat),
        })  # fmt: skip
    return images


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
