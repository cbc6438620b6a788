"""deepduel's pipeline and augmentation as contenders of `benchmark_throughput`."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from deepduel import augment, order
from deepduel.decoding import split as split_module
from deepduel.reading import pipeline
from experiments.benchmark_job import Job
from tfrecords_tools import cli

cli.keep_memory()  # as the commands do; TensorFlow asks when it creates its first tensor


def batches(job: Job, *, fast: bool, reader: str) -> Iterator[tuple[int, object]]:
    """uint8 [B, H, W, 3]."""
    for batch in _dataset(job, fast, reader):
        yield len(batch["images"]), batch["images"]


def cached(job: Job, *, folder: str) -> Iterator[tuple[int, object]]:
    """uint8 [B, H, W, 3] from the cache of decoded pixels: of the scratch folder, or ("") of this process."""
    batches = _dataset(job, False, "random", cache=_cache(job, folder))
    if not folder:
        _read_an_epoch(job, batches)
    for batch in batches:
        yield len(batch["images"]), batch["images"]


def fill(job: Job, *, folder: str) -> None:
    """Fills the cache of the scratch folder."""
    _read_an_epoch(job, _dataset(job, False, "random", cache=_cache(job, folder)))


def _cache(job: Job, folder: str) -> str:
    return f"decoded:{job.scratch}/{folder}" if folder else "ram"


def _read_an_epoch(job: Job, batches: tf.data.Dataset) -> None:
    for _ in batches.take(order.steps_per_epoch(len(job.files), job.batch_size)):
        pass


def photos(job: Job, *, fast: bool) -> Iterator[tuple[int, object]]:
    """uint8 [B, S, S, 3] of images of any size."""
    for batch in _dataset(job, fast, "random", size=(job.target_size, job.target_size)):
        yield len(batch["images"]), batch["images"]


def augmented(job: Job, *, fast: bool) -> Iterator[tuple[int, object]]:
    """float32 [B, S, S, 3], 0..255, the original's augmentation."""
    warp = _warp(job)
    # One compilation per batch size: the epoch's last batch must not be compiled in the measured time.
    for rows in {job.batch_size, len(job.files) % job.batch_size or job.batch_size}:
        warp(np.zeros((rows, *job.size, 3), np.uint8), np.zeros((rows, 2), np.int32))
    for batch in _dataset(job, fast, "random"):
        yield len(batch["images"]), warp(batch["images"], batch["seeds"])


def augmentation_alone(job: Job) -> Iterator[tuple[int, object]]:
    """float32 [B, S, S, 3] from one decoded batch, with other draws each time."""
    warp = _warp(job)
    batch = next(iter(_dataset(job, False, "random")))
    images, number = batch["images"], 0
    rows = len(images)
    while True:
        seeds = tf.stack([tf.fill([rows], number), tf.range(rows)], axis=1)
        yield rows, warp(images, seeds)
        number += 1


def _dataset(job: Job, fast: bool, reader: str, **more):
    reading = pipeline.ReadOptions(
        job.batch_size, fast_decode=fast, reader=reader, threads=job.threads, **more
    )
    return pipeline.train_batches(split_module.Split(job.data_dir, job.split), reading, order.Position())


def _warp(job: Job):
    preset = augment.PRESETS["original"]
    return tf.function(lambda images, seeds: augment.augment(images, seeds, preset, job.target_size))
