"""Speed of frozen networks with their batch norms folded, against the same networks as they are.

    python -m experiments.benchmark_folding --backbones=xception,resnet50 --precisions=float32,mixed_bfloat16

Passes of one batch of random pixels through backbone and average pooling, random weights (they cost what
trained ones cost), the two in turn. In front of it what the processor does at best: a product of two large
matrices, to compare with what the folded network's convolutions come to, GFLOP/s.
"""

import statistics
import sys
import time
from collections.abc import Callable

from absl import flags

from deepduel.networks import keras_graph
from tfrecords_tools import cli

FLAGS = flags.FlagValues()
flags.DEFINE_list(
    "backbones",
    ["xception", "vgg16", "resnet50", "efficientnetv2b0"],
    "Networks to measure.",
    flag_values=FLAGS,
)
flags.DEFINE_list("precisions", ["float32", "mixed_bfloat16"], "Precisions to measure.", flag_values=FLAGS)
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=8, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 32, "Images per batch.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rounds",
    5,
    "Measurements of each network, of which the median is shown.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_float("seconds", 1.5, "Seconds of one measurement.", lower_bound=0.0, flag_values=FLAGS)

_SIDE = 4096  # of the matrices


def main(options: flags.FlagValues) -> None:
    cli.quiet_tensorflow()
    from deepduel.networks.architecture import Architecture

    for precision in options.precisions:
        dtype = precision.removeprefix("mixed_")
        peak = _peak(dtype) / 1e9
        print(f"product of matrices of {_SIDE} x {_SIDE} in {dtype}: {peak:,.0f} GFLOP/s", flush=True)
    columns = f"{'as it is':>9} {'folded':>9} {'':>6} {'GFLOP/s':>8}"
    print(f"{'backbone':18} {'precision':15} {'GFLOP/image':>11} {columns}")
    for backbone in options.backbones:
        for precision in options.precisions:
            architecture = Architecture(backbone, "avg", options.image_size, precision=precision)
            operations, plain, folded = _measure(architecture, options)
            print(
                f"{backbone:18} {precision:15} {operations / 1e9:11.2f} {plain:9.1f} {folded:9.1f} "
                f"{folded / plain:5.2f}x {folded * operations / 1e9:8,.0f}",
                flush=True,
            )


def _peak(dtype: str) -> float:
    import tensorflow as tf

    matrices = [tf.cast(tf.random.normal((_SIDE, _SIDE)), dtype) for _ in range(2)]
    product = tf.function(lambda: tf.matmul(*matrices))
    product()
    return 2 * _SIDE**3 / min(_seconds(product) for _ in range(5))


def _measure(architecture, options: flags.FlagValues) -> tuple[float, float, float]:
    """(operations an image, images/s as it is, images/s folded)."""
    import tensorflow as tf

    from deepduel.networks import task_model

    model = task_model.build("speed", architecture, ("real", "fake"))
    side = architecture.image_size
    images = tf.random.uniform((options.batch_size, side, side, 3), 0, 255)
    ways = [
        tf.function(lambda: model.extractor(images, training=False), autograph=False),
        tf.function(lambda: model.frozen(images), autograph=False),
    ]
    for way in ways:
        way(), way()  # traced, then with memory that is there
    rates: list[list[float]] = [[], []]
    for _ in range(options.rounds):
        for way, of_way in zip(ways, rates, strict=True):
            of_way.append(options.batch_size / _mean_seconds(way, options.seconds))
    return _operations(model.extractor), *map(statistics.median, rates)


def _mean_seconds(function: Callable, at_least: float) -> float:
    started, done = time.perf_counter(), 0
    while not done or time.perf_counter() - started < at_least:
        _seconds(function)
        done += 1
    return (time.perf_counter() - started) / done


def _seconds(function: Callable) -> float:
    started = time.perf_counter()
    function().numpy()  # waits for it
    return time.perf_counter() - started


def _operations(extractor) -> float:
    """Multiplications and additions of the convolutions for one image."""
    return sum(
        2.0 * weight.shape.num_elements() * layer.output.shape[1] * layer.output.shape[2]
        for layer in keras_graph.flat_layers(extractor)
        if hasattr(layer, "kernel_size")
        for weight in (variable.value for variable in layer.weights)
        if len(weight.shape) == 4
    )


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.benchmark_folding"))
