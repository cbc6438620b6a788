"""Head weights on a frozen backbone, in micro-batches, against plain Keras on full batches.

    python -m experiments.check_exactness --data_dir=SHARDS --steps=50 --image_size=96

Xception with random weights, batch norm in inference mode, the original's head with its dropout: the same
seeds give the same masks. Prints the largest difference after every tenth step; exit code 1 above 1e-5.
"""

import sys

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import DataError

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Folder of shards.", flag_values=FLAGS, required=True)
flags.DEFINE_string("backbone", "xception", "Network of keras.applications, or small_cnn.", flag_values=FLAGS)
flags.DEFINE_string("weights", "none", "Initial weights: none, imagenet or a file.", flag_values=FLAGS)
flags.DEFINE_integer("image_size", 96, "Side of the images in pixels.", lower_bound=8, flag_values=FLAGS)
flags.DEFINE_integer("steps", 50, "Number of training steps.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 8, "Images per step.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("micro_batch", 3, "Images per pass of ours.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.001, "Learning rate of Adam.", flag_values=FLAGS)

LIMIT = 1e-5


def main(options: flags.FlagValues) -> None:
    cli.quiet_tensorflow()
    import keras
    import numpy as np

    from deepduel.augment import PRESETS, augment
    from deepduel.decoding.split import Split
    from deepduel.networks import task_model
    from deepduel.networks.architecture import Architecture
    from deepduel.reading import order, pipeline
    from deepduel.training.task import Task
    from deepduel.training.trainer import MultiTaskTrainer

    split = Split(options.data_dir, "train")
    axis = next(iter(split.manifest.axes))
    architecture = Architecture(
        options.backbone, "avg,dropout:0.5,dense:512", options.image_size, options.weights
    )

    def build():
        model = task_model.build(axis, architecture, split.manifest.axes[axis], seed=1)
        return Task(axis, model, PRESETS["original"], keras.optimizers.Adam(options.learning_rate))

    ours, plain = build(), build()
    trainer = MultiTaskTrainer([ours], micro_batch=options.micro_batch)
    trainer.compile()
    inputs = plain.model.extractor.input
    network = keras.Model(inputs, plain.model.head(plain.model.extractor(inputs, training=False)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(plain.optimizer, loss, jit_compile=False)

    def largest(one, other) -> float:
        return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))

    first = plain.model.head.get_weights()
    reading = pipeline.ReadOptions(options.batch_size, size=(200, 200))
    batches = pipeline.train_batches(split, reading, order.Position(1))
    step, ahead = trainer.make_train_function(), iter(batches)
    for number, batch in enumerate(batches.take(options.steps), start=1):
        step(ahead)
        pixels = augment(batch["images"], batch["seeds"], plain.augmentation, options.image_size)
        network.train_on_batch(pixels, batch["labels"][axis])
        if number % 10 == 0 or number == options.steps:
            worst = largest(plain.model.head.get_weights(), ours.model.head.get_weights())
            moved = largest(plain.model.head.get_weights(), first)
            print(
                f"step {number}: largest difference {worst:.2e}, of weights that moved by up to {moved:.2e}"
            )
    if not worst <= LIMIT:
        raise DataError(f"the head weights differ by {worst:.2e}, more than {LIMIT:g}")


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.check_exactness"))
