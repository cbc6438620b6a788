"""Says what limits the input: each stage alone and all together, for a few seconds each.

    python -m deepduel.profile_input --data_dir=SHARDS --batch_size=128 --augmentation=original

Rates are images/s on this machine as it is now; run it with the flags of your training.
"""

import sys
import time
from collections.abc import Callable

from absl import flags

from deepduel import augmentation_flags, task_flags
from tfrecords_tools import cli

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS, required=True)
flags.DEFINE_string("split", "train", "Split to read.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 128, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("image_size", 224, "Side of the network's input, pixels.", lower_bound=1,
                     flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer("host_size", 0, "Side that images of differing sizes are brought to; 0: image_size.",
                     lower_bound=0, flag_values=FLAGS)  # fmt: skip
flags.DEFINE_string("augmentation", "original", "Preset: original, forensic, robust, light or none.",
                    flag_values=FLAGS)  # fmt: skip
flags.DEFINE_enum("reader", "random", ["random", "sequential"], "As in train.", flag_values=FLAGS)
flags.DEFINE_bool("fast_decode", False, "As in train.", flag_values=FLAGS)
flags.DEFINE_bool("native_resolution", False, "As in train.", flag_values=FLAGS)
flags.DEFINE_integer("threads", 0, "That decode; 0: all cores.", lower_bound=0, flag_values=FLAGS)
augmentation_flags.define(FLAGS, tasks=False)
flags.DEFINE_float("seconds", 3, "To measure each stage.", lower_bound=0.01, flag_values=FLAGS)

_NEAR = 1.15  # rates nearer than this to each other are called equal


def main(options: flags.FlagValues) -> None:
    cli.quiet_tensorflow()
    import tensorflow as tf

    from deepduel import faults

    changes = augmentation_flags.given(options, ["input"], task_flags.per_task)["input"]
    augmentation, _ = augmentation_flags.build(options.augmentation, changes)
    try:
        rates = measure(options, augmentation)
    except tf.errors.OpError as error:
        raise faults.data_error(error) or error from error
    print(f"{'stage':<34}{'images/s':>10}")
    for stage, rate in rates.items():
        print(f"{stage:<34}{rate:>10,.0f}")
    print(verdict(rates, reader=options.reader, fast=options.fast_decode))


def measure(options: flags.FlagValues, preset) -> dict[str, float]:
    """Images/s by stage."""
    import numpy as np
    import tensorflow as tf

    from deepduel import order, pipeline
    from deepduel.augment import augment
    from deepduel.decode import BatchDecoder
    from deepduel.shards import Split

    split = Split(options.data_dir, options.split)
    side = options.host_size or options.image_size
    reading = pipeline.Reading(
        options.batch_size,
        size=None if split.one_size and not options.native_resolution else (side, side),
        fit="native" if options.native_resolution else "crop",
        reader=options.reader,
        fast_decode=options.fast_decode,
        threads=options.threads or None,
    )
    batches = pipeline.train_batches(split, reading, order.Position())
    decoding = reading.decoding(split)
    decode = BatchDecoder(split, decoding, threads=reading.threads)
    numbers = order.permutation(len(split), seed=0, epoch=0)
    rows = min(options.batch_size, len(split))
    turn = 0

    def some_records():
        nonlocal turn
        turn = (turn + rows) % max(len(numbers) - rows + 1, 1)
        return numbers[turn : turn + rows]

    def read():
        return len(split.images(some_records()))

    def decoded():
        return len(decode(some_records()))

    pixels = tf.constant(np.asarray(decode(some_records())))
    # XLA compiles for each batch size; the measured batches all have the first one's.
    prepared = tf.function(lambda images, seeds: augment(images, seeds, preset, options.image_size))

    def augmented():
        seeds = tf.stack([tf.fill([rows], turn), tf.range(rows)], axis=1)
        some_records()
        return computed(prepared(pixels, seeds))

    alone, together = iter(batches), iter(batches)

    def whole_input():
        return len(next(alone)["images"])

    def everything():
        batch = next(together)
        return computed(prepared(batch["images"], batch["seeds"]))

    stages = {
        "reading bytes": read,
        "reading and decoding": decoded,
        f"the pipeline, reader {options.reader}": whole_input,
        "augmentation, on the device": augmented,
        "pipeline and augmentation": everything,
    }
    if len(split) % rows:
        compile_for(prepared, pixels, len(split) % rows)
    return {stage: rate(call, options.seconds) for stage, call in stages.items()}


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


def verdict(rates: dict[str, float], *, reader: str, fast: bool) -> str:
    """One sentence: what limits, what the cache would change, which flag to change."""
    read, decode, whole, augmentation, together = rates.values()
    if augmentation < whole / _NEAR:
        return (
            f"Augmentation limits ({augmentation:,.0f} images/s); a cache would not help: choose a lighter "
            "--augmentation, a smaller --image_size, or a faster device."
        )
    shared = ", which shares these cores with decoding" if together < 0.7 * min(whole, augmentation) else ""
    cached = (
        f"with --cache=ram or decoded:FOLDER the limit would be augmentation{shared}, "
        f"{augmentation:,.0f} images/s"
    )
    if read < decode * _NEAR:
        return f"The disk limits ({read:,.0f} images/s): put the shards on a faster one; {cached}."
    if whole < decode / _NEAR:
        remedy = "--reader=random" if reader == "sequential" else "a larger --batch_size"
        return f"The pipeline around decoding limits ({whole:,.0f} of {decode:,.0f} images/s): try {remedy}."
    flag = "add cores" if fast else "try --fast_decode"
    return f"Decoding limits ({whole:,.0f} images/s): {flag}; {cached}."


def entry() -> int:
    return cli.run(main, FLAGS, name="deepduel.profile_input")


if __name__ == "__main__":
    sys.exit(entry())
