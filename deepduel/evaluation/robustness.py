"""Metrics on recompressed, blurred, downscaled and cropped images.

Each image is decoded at the size at which the run reads it, and then damaged with libjpeg-turbo and Pillow,
not with the augmentation of the training:

    jpeg      JPEG quality, with 4:2:0 chroma subsampling, as web sites recompress uploads
    blur      standard deviation of a Gaussian filter, pixels
    resize    factor by which the sides are downscaled, before upscaling to the old size (bicubic)
    crop      share of the sides that a central crop keeps, before upscaling to the old size (bicubic)
"""

import concurrent.futures
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image, ImageFilter

from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.split import Split
from deepduel.evaluation import metrics
from deepduel.prediction.predictor import Predictor
from tfrecords_tools import host_cpus
from tfrecords_tools.progress import Progress

LEVELS: dict[str, tuple[float, ...]] = {
    "jpeg": (95, 85, 75, 65, 50, 40, 30),
    "blur": (0.5, 1.0, 1.5, 2.0, 3.0),
    "resize": (0.9, 0.75, 0.5, 0.35, 0.25),
    "crop": (0.9, 0.75, 0.6, 0.5),
}


def damage(pixels: np.ndarray, kind: str, level: float) -> np.ndarray:
    """Applies one kind of damage of `LEVELS`: uint8 [H, W, 3] -> uint8 [H, W, 3]."""
    if kind == "jpeg":
        coded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), int(level), "RGB", "420", fastdct=False)
        return simplejpeg.decode_jpeg(coded, "RGB")
    picture = Image.fromarray(pixels)
    width, height = picture.size
    if kind == "blur":
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(level)))
    small = max(1, round(width * level)), max(1, round(height * level))
    if kind == "resize":
        picture = picture.resize(small, Image.Resampling.BICUBIC)
    elif kind == "crop":
        left, top = (width - small[0]) // 2, (height - small[1]) // 2
        picture = picture.crop((left, top, left + small[0], top + small[1]))
    else:
        raise ValueError(f"kind must be one of {', '.join(LEVELS)}, got {kind!r}")
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def curves(
    split: Split,
    labels: dict[str, np.ndarray],
    predictor: Predictor,
    *,
    images: int,
    batch_size: int,
    on_error: str = "fail",
) -> dict[str, dict]:
    """Computes the metrics for every kind and level of damage.

    Args:
      labels: {axis: int [records]}, class indices of the run; -1 for no label and for records to leave out.
      images: number of images to use, spread evenly over the split; 0 for all.
      batch_size: images per batch.
      on_error: "fail" raises DataError at a record that does not decode; "skip" requires that `labels` is -1
        for such records.

    Returns:
      {axis: {"images", "kinds": {kind: [{"level", and the metrics of `metrics.TITLES`}]}}}; the first
      level, None, is the undamaged images.
    """
    count = min(images or len(split), len(split))
    numbers = np.unique(np.linspace(0, len(split) - 1, count).astype(np.int64))
    steps: list[tuple[str, float | None]] = [("", None)]
    steps += [(kind, level) for kind, levels in LEVELS.items() for level in levels]
    collected = _predict_all(split, predictor, numbers, steps, batch_size, on_error)
    results = {}
    for axis, axis_labels in labels.items():
        known = axis_labels[numbers] >= 0
        truth = axis_labels[numbers][known]
        if not len(truth):
            continue
        figures = {step: metrics.score(truth, part[axis][known]).values for step, part in collected.items()}
        kinds = {
            kind: [{"level": None, **figures["", None]}]
            + [{"level": level, **figures[kind, level]} for level in levels]
            for kind, levels in LEVELS.items()
        }
        results[axis] = {"images": len(truth), "kinds": kinds}
    return results


def _predict_all(
    split: Split, predictor: Predictor, numbers: np.ndarray, steps: list, batch_size: int, on_error: str
) -> dict:
    """{(kind, level): {axis: float32 [numbers, classes]}}; each image is decoded once."""
    decode = BatchDecoder(split, predictor.decoding, on_error=on_error)
    parts: dict = {step: {axis: [] for axis in predictor.classes} for step in steps}
    pool = concurrent.futures.ThreadPoolExecutor(host_cpus.available(), "damage")
    done = 0
    with pool, Progress("damaging", total=len(numbers) * len(steps)) as bar:
        for start in range(0, len(numbers), batch_size):
            batch = numbers[start : start + batch_size]
            pixels = decode(batch)
            for kind, level in steps:
                predicted = predictor(_damaged(pixels, kind, level, pool.map))
                for axis, values in predicted.items():
                    parts[kind, level][axis].append(values)
                done += len(batch)
                bar.update(done)
    return {step: {axis: np.concatenate(each) for axis, each in by.items()} for step, by in parts.items()}


def _damaged(pixels: np.ndarray, kind: str, level: float | None, apply: Callable) -> np.ndarray:
    if level is None:
        return pixels
    return np.stack(list(apply(lambda image: damage(image, kind, level), pixels)))
