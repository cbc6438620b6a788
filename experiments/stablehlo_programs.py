"""The programs that `export_stablehlo` exports, each a pure function of arrays.

    augmentation   uint8 [B, H, W, 3], seeds [B, 2]                    -> float32 [B, S, S, 3]
    forward        float32 [B, S, S, 3], weights                       -> features [B, …]
    train step     uint8 [m, H, W, 3], seeds, labels, weights, state   -> loss, gradients' norm, state

Weights and state are arguments and not constants, so that the program's text is small. Their values are
rules (see `run_stablehlo.values`): kernels are drawn uniformly with a variance of 1 / fan_in, so that values
neither vanish nor leave float16. Dropout is off: TensorFlow's kernels and XLA draw different numbers.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from deepduel.augment import PRESETS, Augmentation
from deepduel.augmentation.transform import augment, resize
from deepduel.networks import task_model
from deepduel.networks.architecture import PRECISIONS, Architecture
from deepduel.training import passes, step
from deepduel.training.task import Task
from deepduel.training.task_losses import Objective

CLASSES = ("first", "second", "third")
NETWORKS = {  # backbone, head, fine_tune
    "xception": ("xception", "avg,dropout:0.5,dense:512", "none"),
    "vgg16": ("vgg16", "flatten,dense:2048,dense:2048", "none"),
    "efficientnetv2s": ("efficientnetv2s", "avg", "all"),
}
# Of results in another precision, or by convolutions that multiply in TF32, from those in float32.
TOLERANCES = {"float32": 1e-2, "mixed_float16": 5e-2, "mixed_bfloat16": 3e-1}
_LOSS_SCALE = 1024.0
_RATE, _BETA_1, _BETA_2, _EPSILON = 0.001, 0.9, 0.999, 1e-7  # Keras' Adam


@dataclasses.dataclass(frozen=True)
class Input:
    """One argument: its shape, type, and the rule that its values follow."""

    shape: tuple[int, ...]
    dtype: str
    rule: dict

    @property
    def spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class Program:
    """What is exported.

    Attributes:
      function: of as many tensors as there are inputs; returns a list of tensors.
      images: in one call.
      compared: how many of the outputs, from the first, are compared with the CPU's.
      state: places of the inputs that become the outputs after those.
      tolerance: of the comparison, relative; 0: bits.
      reference: the same in float32 where this is not, to take the CPU's results from.
      rows: of each output to compare, where each depends on its own image alone; 0: all.
      compiled: whether the CPU's results are computed by XLA too.
      steps: calls to compare, the state of each being the results of the one before.
    """

    name: str
    kind: str
    function: Callable
    inputs: Sequence[Input]
    images: int
    compared: int = 1
    state: Sequence[int] = ()
    tolerance: float = 0.0
    reference: str = ""
    rows: int = 0
    compiled: bool = False
    steps: int = 1


def images_input(count: int, side: int) -> Input:
    return Input((count, side, side, 3), "uint8", {"kind": "bytes", "seed": 1})


def seeds_input(count: int) -> Input:
    return Input((count, 2), "int32", {"kind": "bits", "seed": 2})


def augmentations(count: int, stored: int, size: int) -> Iterator[Program]:
    """Each preset; `none` is the resize of validation."""
    for name, preset in PRESETS.items():

        def function(images, seeds, preset=preset):
            return [resize(images, size) if preset.is_identity else augment(images, seeds, preset, size)]

        # Blurs and JPEG's cosine transform add up floats, whose order the compiler decides.
        exact = not preset.is_identity and preset.blur_sigma is None and preset.jpeg_quality is None
        yield Program(
            f"augment-{name}", "augmentation", function, [images_input(count, stored), seeds_input(count)],
            count, tolerance=0.0 if exact else 1e-2, compiled=True,
        )  # fmt: skip


def keras_cv_layers(count: int, stored: int) -> Iterator[Program]:
    """The layers of the keras-cv stack of `benchmark_keras`, one by one; not all compile."""
    import keras_cv

    border, layers = {"fill_mode": "nearest"}, keras_cv.layers
    for layer in (
        layers.RandomFlip("horizontal_and_vertical"), layers.RandomRotation(30 / 360, **border),
        layers.RandomTranslation(0.1, 0.1, **border), layers.RandomShear(x_factor=0.1, **border),
        layers.RandomZoom((-0.3, 0.3), (-0.3, 0.3), **border), layers.RandomBrightness((-0.35, 0.35)),
    ):  # fmt: skip

        def function(images, layer=layer):
            return [layer(tf.cast(images, tf.float32), training=True)]

        name = f"keras_cv-{type(layer).__name__}"
        inputs = [images_input(count, stored)]
        yield Program(name, "keras-cv", function, inputs, count, tolerance=1e-2, compiled=True)


def forwards(network: str, count: int, size: int, rows: int) -> Iterator[Program]:
    """The frozen network, its batch norms folded and as it is, in each precision."""
    backbone, head, _ = NETWORKS[network]
    for precision in PRECISIONS:
        architecture = Architecture(backbone, head, size, precision=precision)
        model = task_model.build(network, architecture, CLASSES)
        for way in ("folded", "plain"):
            folded, extractor = model.frozen, model.extractor
            parts = [*folded.variables, *extractor.variables] if way == "folded" else extractor.variables
            variables = list({id(variable): variable for variable in parts}.values())

            def function(images, *weights, variables=variables, way=way, folded=folded, extractor=extractor):
                with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
                    out = folded(images) if way == "folded" else extractor(images, training=False)
                return [tf.cast(out, tf.float32)]

            pixels = Input((count, size, size, 3), "float32", {"kind": "uniform", "scale": 255.0, "seed": 1})
            yield Program(
                f"forward-{network}-{way}-{precision}", "forward", function,
                [pixels, *weight_inputs(variables)], count, tolerance=TOLERANCES[precision],
                reference=f"forward-{network}-{way}-float32", rows=min(rows, count),
            )  # fmt: skip


def weight_inputs(variables: Sequence[keras.Variable]) -> list[Input]:
    return [_weight(number, variable) for number, variable in enumerate(variables)]


def _weight(number: int, variable: keras.Variable) -> Input:
    shape, name = tuple(variable.shape), variable.name
    dtype = str(variable.dtype)
    if "seed" in name:
        return Input(shape, dtype, {"values": [1, 2]})
    if any(part in name for part in ("variance", "gamma")):
        return Input(shape, dtype, {"fill": 1.0})
    if len(shape) < 2:
        return Input(shape, dtype, {"kind": "uniform", "scale": 0.1, "seed": 100 + number})
    depthwise = len(shape) == 4 and shape[-1] == 1 and "pointwise" not in name
    fan_in = math.prod(shape[:2]) if depthwise else math.prod(shape[:-1])
    return Input(
        shape, dtype, {"kind": "uniform", "scale": math.sqrt(3 / max(fan_in, 1)), "seed": 100 + number}
    )


def train_step(network: str, precision: str, count: int, stored: int, size: int) -> Program:
    """Augmentation, networks, loss, gradients and Adam on one micro-batch that is the whole batch."""
    backbone, head, fine_tune = NETWORKS[network]
    architecture = Architecture(backbone, head, size, fine_tune=fine_tune, precision=precision)
    model = task_model.build(network, architecture, CLASSES)
    optimizer: keras.optimizers.Optimizer = keras.optimizers.Adam(_RATE)
    scaling = architecture.trainable and precision == "mixed_float16"
    if scaling:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    for layer in (*model.extractor._flatten_layers(), *model.head.layers):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    task = Task(network, model, PRESETS["original"], optimizer)
    trained = task.trained_variables
    if scaling:
        optimizer.build(trained)
    changing = [*(model.extractor.variables if architecture.trainable else []), *model.head.variables]
    resting = [] if architecture.trainable else [*model.frozen.variables, *model.extractor.variables]
    resting = list({id(variable): variable for variable in resting}.values())
    if scaling:
        resting.append(optimizer.dynamic_scale)
    moments = [Input(tuple(variable.shape), "float32", {"fill": 0.0}) for variable in trained]

    def function(images, seeds, labels, done, *arrays):
        arrays = list(arrays)
        fixed, arrays = arrays[: len(resting)], arrays[len(resting) :]
        weights, arrays = arrays[: len(changing)], arrays[len(changing) :]
        means, squares = arrays[: len(trained)], arrays[len(trained) :]
        mapping = list(zip([*resting, *changing], [*fixed, *weights], strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            loss, gradients = _backward(task, images, seeds, labels, count)
            now = {id(variable): scope.get_current_value(variable) for variable in changing}
        now = {
            key: weight if value is None else value
            for (key, value), weight in zip(now.items(), weights, strict=True)
        }
        if scaling:
            gradients = [gradient / _LOSS_SCALE for gradient in gradients]
        norm = tf.linalg.global_norm(gradients)
        done, means, squares = _adam(task, gradients, norm, now, done + 1, means, squares)
        return [loss, norm, done, *(now[id(variable)] for variable in changing), *means, *squares]

    head_inputs = [
        images_input(count, stored), seeds_input(count),
        Input((count,), "int32", {"kind": "below", "limit": len(CLASSES), "seed": 3}),
        Input((), "float32", {"fill": 0.0}),
    ]  # fmt: skip
    weights = weight_inputs([*resting, *changing])
    if scaling:
        weights[len(resting) - 1] = Input((), "float32", {"fill": _LOSS_SCALE})
    first = len(head_inputs) + len(resting)
    state = [3, *range(first, first + len(changing) + 2 * len(trained))]
    return Program(
        f"train-{network}-{precision}-{count}", "train step", function,
        [*head_inputs, *weights, *moments, *moments], count, compared=2, state=state,
        tolerance=TOLERANCES[precision], reference=f"train-{network}-float32-{count}",
        steps=2 if architecture.trainable else 3,  # Adam makes rounding errors of small gradients large
    )  # fmt: skip


def _backward(task: Task, images, seeds, labels, count: int):
    """(loss, gradients of the scaled loss)."""
    pixels = augment(images, seeds, _augmentation(task), task.size)
    inputs = pixels if task.trainable else tf.stop_gradient(task.model.frozen(pixels))
    masks = step.draw_masks(task.model.head, count)
    targets = Objective().targets(labels, tf.ones(count), None, len(CLASSES))
    logits, gradients = passes.backward(
        [task], inputs, {task.name: masks}, {task.name: targets}, {task.name: tf.constant(float(count))}
    )
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits[task.name])
    return tf.reduce_mean(losses), gradients[task.name]


def _augmentation(task: Task) -> Augmentation:
    return task.augmentation


def _adam(task: Task, gradients, norm, now: dict, done, means, squares):
    """Keras' Adam, and nothing where the gradients are not finite; changes `now`, returns the rest."""
    finite = tf.math.is_finite(norm)
    rate = _RATE * tf.sqrt(1 - tf.pow(_BETA_2, done)) / (1 - tf.pow(_BETA_1, done))
    new_means, new_squares = [], []
    for variable, gradient, mean, square in zip(
        task.trained_variables, gradients, means, squares, strict=True
    ):
        new_mean = mean + (gradient - mean) * (1 - _BETA_1)
        new_square = square + (tf.square(gradient) - square) * (1 - _BETA_2)
        moved = now[id(variable)] - rate * new_mean / (tf.sqrt(new_square) + _EPSILON)
        now[id(variable)] = tf.where(finite, moved, now[id(variable)])
        new_means.append(tf.where(finite, new_mean, mean))
        new_squares.append(tf.where(finite, new_square, square))
    return tf.where(finite, done, done - 1), new_means, new_squares
