"""Measures five figures of the deepduel that PYTHONPATH names, for `benchmark_guard`.

Prints a JSON object {figure: images per processor second}, over this process and its decoding processes.
"""

import itertools
import json
import sys
import time
from collections.abc import Iterator

import psutil
import tensorflow as tf

from deepduel.augment import PRESETS, augment
from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.reading.options import ReadOptions

_BATCH = 128


def main(data_dir: str, split: str, seconds: float) -> None:
    opened = Split(data_dir, split)
    height, width = opened.sizes[0].tolist()
    smaller = max(height * 2 // 3, 1), max(width * 2 // 3, 1)

    def batches(**options: object) -> Iterator[dict]:
        reading = ReadOptions(_BATCH, **({"size": (height, width)} | options))
        return iter(pipeline.train_batches(opened, reading, order.Position()))

    figures = {
        "accurate": _rate(batches(), seconds),
        "fast": _rate(batches(fast_decode=True), seconds),
        "resized": _rate(batches(size=smaller), seconds),
        "sequential": _rate(batches(reader="sequential"), seconds),
    }
    images = next(batches())["images"]
    rows = len(images)
    step = tf.function(lambda seeds: augment(images, seeds, PRESETS["original"], height))

    def augmented() -> Iterator[dict]:
        for number in itertools.count():
            yield {"images": step(tf.stack([tf.fill([rows], number), tf.range(rows)], axis=1))}

    figures["augmented"] = _rate(augmented(), seconds)
    print(json.dumps(figures))


def _rate(batches: Iterator[dict], seconds: float) -> float:
    """Images per processor second, after as many seconds to warm up: worker processes start in them."""
    _count(batches, seconds)
    used = _processor_seconds()
    images = _count(batches, seconds)
    return images / max(_processor_seconds() - used, 1e-3)


def _count(batches: Iterator[dict], seconds: float) -> int:
    images, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        images += len(next(batches)["images"])
    return images


def _processor_seconds() -> float:
    process = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
