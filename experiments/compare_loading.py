"""Measures what a model's accuracy becomes when other programs resize its images in other ways.

    python -m experiments.compare_loading --workdir=RUN --data_dir=SHARDS

Takes the labelled images of a split at their own sizes, and prints for each task the accuracy of best.keras
behind each way of resizing to its input, and that of the exported serving model. The shards must hold images
of more than one size, or larger than the input.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from PIL import Image

from tfrecords_tools import cli, progress
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import manifest

if TYPE_CHECKING:
    from deepduel.prediction.predictor import Predictor

FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS, required=True)
flags.DEFINE_string("data_dir", None, "Folder of the shards.", flag_values=FLAGS, required=True)
flags.DEFINE_string("split", "validation", "Split to measure on.", flag_values=FLAGS)
flags.DEFINE_integer(
    "least_side", 0, "Leave out images whose longer side is shorter than this, in pixels.", flag_values=FLAGS
)
Way = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W, 3] -> probabilities [classes]


def main(options: flags.FlagValues) -> None:
    cli.quiet_tensorflow()
    from deepduel.evaluation import predictions
    from deepduel.prediction.predictor import Predictor

    predictor = Predictor(options.workdir)
    splits = manifest.load(options.data_dir, shards=False).splits
    name = predictor.card.evaluated_split(options.split, splits)
    split, labels = predictions.open_split(options.data_dir, name, predictor)
    large = split.sizes.max(axis=1) >= options.least_side
    print("task  images  way  accuracy")
    for axis, numbers in labels.items():
        records = np.flatnonzero((numbers >= 0) & large)
        if not len(records):
            raise UsageError(f"no labelled image of {options.split} has {options.least_side} pixels")
        ways = _ways(predictor, axis)
        right = dict.fromkeys(ways, 0)
        with progress.Progress(axis, total=len(records)) as bar:
            for done, record in enumerate(records.tolist(), 1):
                pixels = split.pixels(record)
                for way, probabilities in ways.items():
                    right[way] += int(probabilities(pixels).argmax() == numbers[record])
                bar.update(done)
        for way, count in right.items():
            print(f"{axis}  {len(records):,}  {way}  {count / len(records):.2%}")


def _ways(predictor: "Predictor", axis: str) -> dict[str, Way]:
    """{name: way from an image to the probabilities}."""
    import tensorflow as tf

    from deepduel.decoding.image import resize_image
    from deepduel.networks import serving_model

    model = predictor.models[axis]
    side = model.input_shape[1]
    serving = tf.function(
        serving_model.build(model, predictor.framing(axis), predictor.classes[axis]), reduce_retracing=True
    )
    compiled = tf.function(model, reduce_retracing=True)

    def of_pixels(pixels: np.ndarray | tf.Tensor) -> np.ndarray:
        return np.asarray(compiled(np.asarray(pixels, np.float32)[None]))[0]

    return {
        "load_img(target_size), nearest": lambda image: of_pixels(
            Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST)
        ),
        "tf.image.resize": lambda image: of_pixels(tf.image.resize(image, (side, side))),
        "tf.image.resize(antialias=True)": lambda image: of_pixels(
            tf.image.resize(image, (side, side), antialias=True)
        ),
        "exported serving model": lambda image: np.asarray(serving(image[None])["probabilities"])[0],
        "deepduel": lambda image: predictor(resize_image(image, predictor.decoding)[None])[axis][0],
    }


def entry() -> int:
    """The command; returns its exit code."""
    return cli.run(main, FLAGS, name="experiments.compare_loading")


if __name__ == "__main__":
    sys.exit(entry())
