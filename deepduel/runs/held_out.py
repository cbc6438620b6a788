"""Validation images for data without a validation split: a fifth of the training split is held out.

The module imports no TensorFlow.
"""

from absl import flags

from deepduel.decoding.parts import Part, parse
from tfrecords_tools.format import manifest, split_names

TRAINED_PERCENT = 80


def set_splits(options: flags.FlagValues) -> None:
    """Sets --train_split and --validation_split to parts of the training split, and says so.

    It does so only where the default of --validation_split means no split, and the reader can read parts.
    """
    splits = manifest.load(options.data_dir).splits
    if not options["validation_split"].using_default_value or options.reader != "random":
        return
    if split_names.find(splits, options.validation_split) or parse(options.train_split):
        return
    training_split = split_names.find(splits, options.train_split)
    if training_split is None:
        return  # an error that names the splits comes later
    trained = Part(training_split, TRAINED_PERCENT, rest=False)
    options["train_split"].value, options["validation_split"].value = str(trained), str(trained.other)
    print(
        f"{options.data_dir} has no validation split: a fifth of {training_split!r} is held out, by a hash "
        f"of each image, in every class alike (--validation_split='{trained.other}')"
    )
