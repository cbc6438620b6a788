"""How fast the augmentation alone is, against its peers, on the device at hand.

    python -m experiments.benchmark_augment --output=RESULT.json
    python -m experiments.benchmark_augment --options      every preset, and each option on top of original

Random uint8 images in memory, the original's augmentation. Contenders take turns (A B A B …), so that
whatever else the machine does falls on all of them; medians, and images per second of processor time
(all threads), which a busy machine disturbs less than the clock. What they do differs a little:
ours and ImageDataGenerator apply the same transform; the keras-cv stack applies its six layers one
after another, each with its own interpolation; ImageProjectiveTransformV3 gets one matrix per image and
no brightness. Only ours resizes to --size within the same pass; the peers stay at --input_size.
"""

import json
import platform
import statistics
import sys
import time

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.atomic import published

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output", None, "JSON file for the results; without it, only the table is printed.", flag_values=FLAGS
)
flags.DEFINE_integer("batch", 32, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("input_size", 200, "Side of the images in pixels.", lower_bound=8, flag_values=FLAGS)
flags.DEFINE_integer("size", 224, "Side of the augmented images in pixels.", lower_bound=8, flag_values=FLAGS)
flags.DEFINE_integer("rounds", 5, "Measurements of each contender.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_bool(
    "options", False, "Compare our presets, and each option on top of original, instead of peers.",
    flag_values=FLAGS)  # fmt: skip

_OPTIONS = (
    {"fill_mode": "reflect"},
    {"fill_mode": "wrap"},
    {"fill_mode": "constant"},
    {"channel_shift_range": 20},
    {"blur_sigma": (0.0, 1.5)},
    {"jpeg_quality": (60, 100)},
    {"rand_augment": 1},
    {"rand_augment": 2},
    {"mixup_alpha": 0.2},
    {"cutmix_alpha": 1.0},
)


def main(options: flags.FlagValues) -> None:
    cli.quiet_tensorflow()
    choose = _options if options.options else _contenders
    contenders = choose(options.batch, options.input_size, options.size)
    images = {name: count for name, (count, _) in contenders.items()}
    for _, run in contenders.values():
        run()  # compiles
    wall = {name: [] for name in contenders}
    processor = {name: [] for name in contenders}
    for turn in range(options.rounds):
        for name, (count, run) in contenders.items():
            start, used = time.perf_counter(), time.process_time()
            run()
            wall[name].append(count / (time.perf_counter() - start))
            processor[name].append(count / (time.process_time() - used))
        print(f"round {turn + 1} of {options.rounds}", file=sys.stderr, flush=True)
    rows = [
        {
            "contender": name,
            "images": images[name],
            "images_per_s": statistics.median(wall[name]),
            "lowest": min(wall[name]),
            "highest": max(wall[name]),
            "images_per_processor_s": statistics.median(processor[name]),
        }
        for name in contenders
    ]
    _report(rows, options)


def _report(rows: list[dict], options: flags.FlagValues) -> None:
    import keras
    import tensorflow as tf

    print(f"{'augmentation alone':34} {'images/s':>9} {'spread':>15} {'per CPU second':>15}")
    for row in rows:
        spread = f"{row['lowest']:.0f}-{row['highest']:.0f}"
        rates = f"{row['images_per_s']:9.0f} {spread:>15} {row['images_per_processor_s']:15.0f}"
        print(f"{row['contender']:34} {rates}")
    if options.output:
        document = {
            "batch": options.batch,
            "input_size": options.input_size,
            "size": options.size,
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
            "machine": {"processor": platform.processor() or platform.machine(), "system": platform.system()},
            "results": rows,
        }
        with published(options.output) as file:
            file.write(json.dumps(document, indent=1) + "\n")


def _contenders(batch: int, side: int, size: int) -> dict:
    """Name -> (images per run, run). Each run waits for its result."""
    import keras
    import numpy as np
    import tensorflow as tf

    from deepduel.augment import PRESETS, apply_transform, augment, draw

    spec = PRESETS["original"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    images, floats = tf.constant(pixels), tf.constant(pixels, tf.float32)
    seeds = tf.constant(rng.integers(-(2**31), 2**31, (batch, 2)), tf.int32)
    eager = tf.function(lambda: apply_transform(images, draw(spec, seeds, side, side), size=size))
    angles = tf.constant(rng.uniform(-0.5, 0.5, batch), tf.float32)
    zero = tf.zeros_like(angles)
    turn = [tf.cos(angles), -tf.sin(angles), zero + 20, tf.sin(angles), tf.cos(angles), zero - 20, zero, zero]

    def projective():
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=floats, transforms=tf.stack(turn, 1), output_shape=[side, side], fill_value=0.0,
            interpolation="BILINEAR", fill_mode="NEAREST",
        )  # fmt: skip

    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(
        rotation_range=30, width_shift_range=0.1, height_shift_range=0.1, shear_range=0.1, zoom_range=0.3,
        horizontal_flip=True, vertical_flip=True, brightness_range=[0.3, 1.7],
    )  # fmt: skip
    few = min(batch, 16)
    stack = _keras_cv_stack()
    forensic = PRESETS["forensic"]
    return {
        f"ours, {side} -> {size}": (batch, lambda: augment(images, seeds, spec, size).numpy()),
        f"ours, {side} -> {side}": (batch, lambda: augment(images, seeds, spec, side).numpy()),
        f"ours, forensic, {side} -> {side}": (batch, lambda: augment(images, seeds, forensic, side).numpy()),
        f"ours without XLA, {side} -> {size}": (batch, lambda: eager().numpy()),
        f"ImageProjectiveTransformV3, {side}": (batch, lambda: projective().numpy()),
        f"keras-cv, six layers, {side}": (batch, lambda: stack(floats).numpy()),
        f"ImageDataGenerator, {side}": (few, lambda: [generator.random_transform(x) for x in pixels[:few]]),
    }


def _options(batch: int, side: int, size: int) -> dict:
    """As `_contenders`: our presets, and original with each option, as a training step does it."""
    import dataclasses

    import numpy as np
    import tensorflow as tf

    from deepduel import mixing
    from deepduel.augment import PRESETS, augment
    from deepduel.mixing import Mixing

    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (batch, side, side, 3), np.uint8))
    seeds = tf.constant(rng.integers(-(2**31), 2**31, (batch, 2)), tf.int32)

    def contender(spec, mix_spec):
        @tf.function
        def step(images, seeds):
            out = augment(images, seeds, spec, size)
            if mix_spec:
                mix = mixing.plan(mix_spec, size, seeds)
                theirs = (tf.gather(whole, mix.partner) for whole in (images, seeds))
                out = mixing.mix_images(out, augment(*theirs, spec, size), mix.keep, mix.box)
            return out

        return batch, lambda: step(images, seeds).numpy()

    original = PRESETS["original"]
    contenders = {name: contender(spec, Mixing()) for name, spec in PRESETS.items()}
    for change in _OPTIONS:
        (name,) = change
        spec, mix_spec = original, Mixing()
        if name in ("mixup_alpha", "cutmix_alpha"):
            mix_spec = Mixing(**change)
        else:
            spec = dataclasses.replace(original, **change)
        contenders[f"original, {name}={change[name]}"] = contender(spec, mix_spec)
    return contenders


def _keras_cv_stack():
    from keras_cv import layers

    parts = [
        layers.RandomFlip("horizontal_and_vertical"),
        layers.RandomRotation(30 / 360, fill_mode="nearest"),
        layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
        layers.RandomShear(0.002, 0.002, fill_mode="nearest"),
        layers.RandomZoom(0.3, 0.3, fill_mode="nearest"),
        layers.RandomBrightness(0.5),
    ]

    def run(images):
        for part in parts:
            images = part(images)
        return images

    return run


def entry() -> int:
    return cli.run(main, FLAGS, name="experiments.benchmark_augment")


if __name__ == "__main__":
    sys.exit(entry())
