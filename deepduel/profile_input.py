"""Measures which stage limits the input pipeline: each alone, and all together.

    python -m deepduel.profile_input --data_dir=SHARDS --augmentation=original

Rates are images/s on this machine under its present load; use the flags of
your training. With --cache the cache is filled for a while first and then
measured too; decoded:FOLDER stays for later runs.
"""

import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable

from absl import flags

from deepduel.augmentation import flags as augmentation_flags
from deepduel.reading import flags as read_flags
from deepduel.reading.bottleneck import Rates, Situation, table, verdict
from deepduel.runs import task_flags
from deepduel.training import devices
from tfrecords_tools import cli
from tfrecords_tools.format import storage

FLAGS = flags.FlagValues()
USUAL = {
    "Data": ("data_dir", "split", "batch_size", "cache", "threads", "fast_decode"),
    "Augmentation": ("augmentation", "image_size"),
    "Measurement": ("seconds",),
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
    "Data": ("host_size", "fit", "native_resolution", "reader", "sampling", "on_error", "remote_cache"),
    "Augmentation": tuple(name for name in FLAGS if name not in _BEFORE),
}
flags.DEFINE_float(
    "seconds", 3, "Seconds for which each stage is measured.", lower_bound=0.01, flag_values=FLAGS
)

_FILL = 5  # times --seconds, at most, to fill the cache


def main(options: flags.FlagValues) -> None:
    from deepduel.decoding import bad_records, host_memory
    from deepduel.decoding.split import Split

    changes = augmentation_flags.texts_per_task(options, ["input"], task_flags.per_task)["input"]
    augmentation, _ = augmentation_flags.build(options.augmentation, changes)
    split = Split(options.data_dir, options.split)
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


def measure(options: flags.FlagValues, split, preset) -> Rates:
    """Each stage alone and all together. `preset`: the augmentation."""
    import numpy as np
    import tensorflow as tf

    from deepduel.augmentation.transform import augment
    from deepduel.decoding.batch_decoder import BatchDecoder
    from deepduel.reading import order, pipeline

    reading = read_flags.build(options, batch_size=options.batch_size, cache="none")
    if reading.size is None and (split.one_size is None or options.native_resolution):
        reading = dataclasses.replace(reading, size=(options.image_size, options.image_size))
    caching = dataclasses.replace(reading, cache=options.cache)  # refuses what does not go together
    batches = pipeline.train_batches(split, reading, order.Position())
    decode = BatchDecoder(split, reading.decoding(split), threads=reading.threads, on_error=reading.on_error)
    numbers = order.permutation(len(split), seed=0, epoch=0)
    rows = min(options.batch_size, len(split))
    turn = 0

    def some_records():
        nonlocal turn
        turn = (turn + rows) % max(len(numbers) - rows + 1, 1)
        return numbers[turn : turn + rows]

    pixels = tf.constant(np.asarray(decode(some_records())))
    # XLA compiles for each batch size; the measured batches all have the first one's.
    prepared = tf.function(lambda images, seeds: augment(images, seeds, preset, options.image_size))
    if len(split) % rows:
        compile_for(prepared, pixels, len(split) % rows)

    def augmented():
        seeds = tf.stack([tf.fill([rows], turn), tf.range(rows)], axis=1)
        some_records()
        return computed(prepared(pixels, seeds))

    def augmented_from(iterator):
        batch = next(iterator)
        return computed(prepared(batch["images"], batch["seeds"]))

    def through(batches) -> tuple[float, float]:
        alone, together = iter(batches), iter(batches)
        return (
            rate(lambda: len(next(alone)["images"]), options.seconds),
            rate(lambda: augmented_from(together), options.seconds),
        )

    evict(split)
    disk = rate_once(
        lambda at: len(split.images(numbers[at : at + rows])), len(numbers), rows, options.seconds
    )
    memory = rate(lambda: len(split.images(some_records())), options.seconds)
    decoding = rate(lambda: len(decode(some_records())), options.seconds)
    alone, together = through(batches)
    found = Rates(disk, memory, decoding, alone, rate(augmented, options.seconds), together)
    if options.cache == "none":
        return found
    cached = through(filled(pipeline.train_batches(split, caching, order.Position()), options.seconds * _FILL,
                            order.steps_per_epoch(len(split), options.batch_size)))  # fmt: skip
    return dataclasses.replace(found, cached=cached[0], cached_together=cached[1])


def filled(batches, seconds: float, steps: int):
    """Reads for `seconds`, at most an epoch, so that the cache has the pixels; then these, over and over."""
    start, done = time.perf_counter(), 0
    for _ in itertools.islice(batches, steps):
        done += 1
        if time.perf_counter() - start > seconds:
            break
    return batches.take(done).repeat()


def evict(split) -> None:
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


def computed(images) -> int:
    """Waits until the device has done it, by fetching one value; the number of images."""
    images[-1, -1, -1, -1].numpy()
    return len(images)


def compile_for(prepared: Callable, pixels, rows: int) -> None:
    """Compiles for an epoch's last batch too, so that no measurement contains it."""
    import tensorflow as tf

    prepared(pixels[:rows], tf.zeros((rows, 2), tf.int32))


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
    return cli.run(main, FLAGS, name="deepduel.profile_input", usual=USUAL, further=FURTHER)


if __name__ == "__main__":
    sys.exit(entry())
