"""Measures which stage limits the input pipeline: each alone, and all together.

    python -m deepduel.profile_input --data_dir=SHARDS --augmentation=original

Rates are images/s on this machine under its present load; use the flags of
your training. With --plan it also says what a GPU of so many images/s needs.
With --cache the cache is filled for a while first and then measured too;
decoded:FOLDER stays for later runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from deepduel.augmentation import flags as augmentation_flags
from deepduel.reading import flags as read_flags
from deepduel.reading.bottleneck import Rates, Situation, table, verdict
from deepduel.runs import task_flags
from deepduel.training import devices
from tfrecords_tools import cli
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import storage

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from deepduel.augmentation.options import Augmentation
    from deepduel.decoding.split import Split
    from deepduel.reading.options import ReadOptions

FLAGS = flags.FlagValues()
USUAL = {
    "Data": ("data_dir", "split", "batch_size", "cache", "threads", "fast_decode"),
    "Augmentation": ("augmentation", "image_size"),
    "Measurement": ("seconds", "plan"),
}
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS, required=True)
flags.DEFINE_string("split", "train", "Split to read.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "image_size", 224, "Side of the network's square input in pixels.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_string(
    "augmentation",
    "original",
    "Preset of the augmentation: original, forensic, robust, light or none.",
    flag_values=FLAGS,
)
read_flags.define(FLAGS, cache_help="It is measured beside reading without a cache.")
_BEFORE = set(FLAGS)
augmentation_flags.define(FLAGS, tasks=False)
FURTHER = {
    "Data": (
        "host_size",
        "fit",
        "native_resolution",
        "reader",
        "sampling",
        "on_error",
        "remote_cache",
        "data_workers",
    ),
    "Augmentation": tuple(name for name in FLAGS if name not in _BEFORE),
}
flags.DEFINE_float(
    "seconds", 3, "Seconds for which each stage is measured.", lower_bound=0.01, flag_values=FLAGS
)

flags.DEFINE_float(
    "plan", None,
    "Images/s of the GPU's training step (see docs/scaling.md): also say which rate this machine and data "
    "workers like it reach, how many of them are needed, and what they need of the network.",
    lower_bound=0.01, flag_values=FLAGS,
)  # fmt: skip

_FILL = 5  # times --seconds, at most, to fill the cache


def main(options: flags.FlagValues) -> None:
    from deepduel.decoding import bad_records, host_memory
    from deepduel.decoding.split import Split

    changes = augmentation_flags.texts_per_task(options, ["input"], task_flags.per_task)["input"]
    augmentation, _ = augmentation_flags.build(options.augmentation, changes)
    split = Split(options.data_dir, options.split)
    if not len(split):
        raise DataError(f"{options.data_dir}: split {options.split!r} has no images; name another --split")
    cli.quiet_tensorflow()  # usage errors need not wait for it
    import tensorflow as tf

    stored = sum(shard.bytes for shard in split.shards)
    device = "GPU" if devices.gpu_names() else "CPU"
    in_memory = stored < host_memory.available_bytes() / 2
    situation = Situation(options.reader, options.fast_decode, options.cache, device, in_memory)
    try:
        rates = measure(options, split, augmentation)
    except tf.errors.OpError as error:
        raise bad_records.data_error(error) or error from error
    print(table(rates, situation))
    print(verdict(rates, situation))
    if options.plan:
        disk = float("inf") if in_memory else rates.disk
        print(needs(options, split, rates, disk))


def needs(options: flags.FlagValues, split: Split, rates: Rates, disk: float) -> str:
    """What a GPU of --plan images/s needs, from the measured rates; see `capacity`."""
    import numpy as np

    from deepduel.reading import capacity
    from tfrecords_tools import host_cpus

    cores = options.threads or host_cpus.available()
    height, width = reading_options(options, split).decoding(split).size
    images = np.zeros((options.batch_size, height, width, 3), np.uint8)
    send, receive = capacity.connection_costs([images], options.seconds)
    encoded = sum(shard.bytes for shard in split.shards) / len(split)
    costs = capacity.Costs(cores / rates.decoding, send, receive, encoded, height * width * 3)
    return capacity.plan(costs, gpu_rate=options.plan, cores=cores, disk=disk, reader=options.reader)


def reading_options(options: flags.FlagValues, split: Split) -> ReadOptions:
    """How the split is read without a cache."""
    reading = read_flags.build(options, batch_size=options.batch_size, cache="none")
    if reading.size is None and (split.one_size is None or options.native_resolution):
        reading = dataclasses.replace(reading, size=(options.image_size, options.image_size))
    return reading


def measure(options: flags.FlagValues, split: Split, augmentation: Augmentation) -> Rates:
    """Each stage alone, and all together."""
    import tensorflow as tf

    from deepduel.augmentation.transform import augment
    from deepduel.decoding.batch_decoder import BatchDecoder
    from deepduel.reading import order, pipeline

    reading = reading_options(options, split)
    caching = dataclasses.replace(reading, cache=options.cache)  # refuses what does not go together
    batches = pipeline.train_batches(split, reading, order.Position())
    decode = BatchDecoder(split, reading.decoding(split), threads=reading.threads, on_error=reading.on_error)
    some = Sample(order.permutation(len(split), seed=0, epoch=0), min(options.batch_size, len(split)))
    # XLA compiles for each batch size; the measured batches all have the first one's.
    augmented = tf.function(lambda images, seeds: augment(images, seeds, augmentation, options.image_size))
    augment_once = augmentation_of(augmented, decode(some.next()), remainder=len(split) % some.rows)

    seconds = options.seconds
    evict(split)
    disk = rate_once(lambda at: len(split.images(some.at(at))), len(split), some.rows, seconds)
    memory = rate(lambda: len(split.images(some.next())), seconds)
    decoding = rate(lambda: len(decode(some.next())), seconds)
    pipeline_alone, together = rates_through(batches, augmented, seconds)
    rates = Rates(disk, memory, decoding, pipeline_alone, rate(augment_once, seconds), together)
    if options.cache == "none":
        return rates
    steps = order.steps_per_epoch(len(split), options.batch_size)
    cached = filled(pipeline.train_batches(split, caching, order.Position()), seconds * _FILL, steps)
    cached_alone, cached_together = rates_through(cached, augmented, seconds)
    return dataclasses.replace(rates, cached=cached_alone, cached_together=cached_together)


class Sample:
    """Record numbers of one epoch, a batch of `rows` at a time."""

    def __init__(self, numbers: np.ndarray, rows: int) -> None:
        self._numbers = numbers
        self.rows = rows
        self._start = 0

    def at(self, start: int) -> np.ndarray:
        return self._numbers[start : start + self.rows]

    def next(self) -> np.ndarray:
        """The next batch, round and round."""
        self._start = (self._start + self.rows) % max(len(self._numbers) - self.rows + 1, 1)
        return self.at(self._start)


def augmentation_of(augmented: Callable, images: np.ndarray, *, remainder: int) -> Callable[[], int]:
    """A call that augments one batch on the device, with other random draws each time.

    Args:
      images: uint8 [B, H, W, 3].
      remainder: rows of an epoch's last batch, for which `augmented` is compiled too, so that no measurement
        contains it; 0: as many as of the others.
    """
    import numpy as np
    import tensorflow as tf

    pixels = tf.constant(np.asarray(images))
    if remainder:
        augmented(pixels[:remainder], tf.zeros((remainder, 2), tf.int32))
    draws = itertools.count()

    def augment_once() -> int:
        rows = len(pixels)
        return computed(augmented(pixels, tf.stack([tf.fill([rows], next(draws)), tf.range(rows)], axis=1)))

    return augment_once


def rates_through(batches: tf.data.Dataset, augmented: Callable, seconds: float) -> tuple[float, float]:
    """Images/s of the pipeline alone, and with augmentation."""
    alone, together = iter(batches), iter(batches)

    def augment_next() -> int:
        batch = next(together)
        return computed(augmented(batch["images"], batch["seeds"]))

    return rate(lambda: len(next(alone)["images"]), seconds), rate(augment_next, seconds)


def filled(batches: tf.data.Dataset, seconds: float, steps: int) -> tf.data.Dataset:
    """Reads for `seconds`, at most `steps` batches, so that the cache has them; returns them, repeated."""
    start, done = time.perf_counter(), 0
    for _ in itertools.islice(batches, steps):
        done += 1
        if time.perf_counter() - start > seconds:
            break
    return batches.take(done).repeat()


def evict(split: Split) -> None:
    """Asks the kernel to forget the shards' pages, so that reading goes to the disk; no root is needed."""
    if storage.is_remote(split.path(0)):
        return
    for number in range(len(split.shards)):
        file = os.open(split.path(number), os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def rate_once(call: Callable[[int], int], records: int, rows: int, seconds: float) -> float:
    """Images/s of `call` at 0, rows, 2 rows …: each record at most once."""
    done, start = 0, time.perf_counter()
    for at in range(0, records, rows):
        done += call(at)
        if time.perf_counter() - start >= seconds:
            break
    return done / (time.perf_counter() - start)


def computed(images: tf.Tensor) -> int:
    """Waits until the device has computed them, by fetching one value; returns the number of images."""
    images[-1, -1, -1, -1].numpy()
    return len(images)


def rate(call: Callable[[], int], seconds: float) -> float:
    """Images/s of `call`, which returns how many it did; the first, warming call is not counted."""
    call()
    done, start = 0, time.perf_counter()
    while True:
        done += call()
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return done / elapsed


def entry() -> int:
    return cli.run(
        main,
        FLAGS,
        name="deepduel.profile_input",
        usual=USUAL,
        further=FURTHER,
        usage="--data_dir=SHARDS",
    )


if __name__ == "__main__":
    sys.exit(entry())
