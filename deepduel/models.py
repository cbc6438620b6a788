"""Backbones, heads and the models that are saved.

A task's model is two Keras models over the same pixels:

    extractor   float32 [B, S, S, 3] pixels 0..255 -> features [B, …]: preprocessing, backbone, pooling
    head        features -> float32 logits [B, classes]

Training needs the two apart (a frozen extractor runs in micro-batches, without gradients);
`saved_model` joins them, ends in float32 probabilities, and holds nothing but Keras' own
layers, so that `keras.models.load_model` needs no import of ours.
"""

import dataclasses
import inspect
import pathlib

import keras
import numpy as np
from keras import layers

from deepduel.architecture import SMALL_CNN, Architecture, parse_head
from tfrecords_tools.cli import DataError, UsageError

ORIGINAL = {  # backbone and head of the two models of Deepfake Duel
    "category": ("xception", "avg,dropout:0.5,dense:512"),
    "authenticity": ("vgg16", "flatten,dense:2048,dense:2048"),
}


@dataclasses.dataclass(frozen=True)
class TaskModel:
    """A built task: `extractor`, `head` (see the module) and their joint `saved_model`."""

    architecture: Architecture
    classes: tuple[str, ...]
    extractor: keras.Model
    head: keras.Model
    saved_model: keras.Model


def build(name: str, architecture: Architecture, classes: tuple[str, ...], *, seed: int = 0) -> TaskModel:
    """Builds one task's model; the same seed gives the same initial weights.

    Raises:
      UsageError: the backbone cannot be built at this size.
      DataError: the weights cannot be downloaded or do not fit.
    """
    keras.utils.set_random_seed(seed % 2**32)
    pixels = keras.Input((architecture.image_size, architecture.image_size, 3), name="pixels")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(architecture.precision)
    try:
        backbone, preprocess = _backbone(architecture)
        _freeze(backbone, architecture)
        features = backbone(preprocess(pixels), training=None if architecture.trains_statistics else False)
    finally:
        keras.config.set_dtype_policy(policy)
    pooling, hidden = _head_layers(architecture.head)
    features = pooling(features)
    extractor = keras.Model(pixels, features, name=f"{name}_extractor")

    inputs = keras.Input(features.shape[1:], name="features", dtype="float32")
    outputs = inputs
    for layer in hidden:
        outputs = layer(outputs)
    logits = layers.Dense(len(classes), dtype="float32", name="logits")(outputs)
    head = keras.Model(inputs, logits, name=f"{name}_head")

    joint = head(layers.Activation("linear", dtype="float32", name="features_float32")(extractor(pixels)))
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(joint)
    saved_model = keras.Model(pixels, probabilities, name=name)
    return TaskModel(architecture, classes, extractor, head, saved_model)


def backbone_names() -> list[str]:
    """What `Architecture.backbone` may be."""
    names = (
        n
        for n in dir(keras.applications)
        if inspect.isclass(getattr(keras.applications, n)) or n[0].isupper()
    )
    return [SMALL_CNN, *sorted(name.lower() for name in names)]


def small_cnn(image_size: int) -> keras.Model:
    """A small residual network, 0.7 million parameters, to be trained from scratch.

    The traces that give a generated image away are a few pixels wide, so the first stage
    works at full resolution; images above 64 px are halved once on entry by a strided
    convolution, to keep a CPU's pace.
    """
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.Conv2D(32, 3, strides=2 if image_size > 64 else 1, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(_batch_norm()(x))
    for stage, filters in enumerate((32, 64, 128)):
        x = _residual(x, filters, strides=1 if stage == 0 else 2)
    return keras.Model(inputs, x, name=SMALL_CNN)


def _batch_norm() -> layers.Layer:
    # Keras' momentum of 0.99 needs hundreds of steps before inference works; small data has fewer.
    return layers.BatchNormalization(momentum=0.9)


def _residual(x, filters: int, *, strides: int):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, batch norm after each)."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x)
        shortcut = _batch_norm()(shortcut)
    y = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    y = layers.ReLU()(_batch_norm()(y))
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
    y = _batch_norm()(y)
    return layers.ReLU()(layers.Add()([y, shortcut]))


def _backbone(architecture: Architecture):
    """(backbone model, function pixels -> its input)."""
    size = architecture.image_size
    if architecture.backbone == SMALL_CNN:
        backbone = small_cnn(size)
        preprocess = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="preprocess")
    else:
        factory, preprocess_input = _application(architecture.backbone)
        weights = "imagenet" if architecture.weights == "imagenet" else None
        try:
            backbone = factory(include_top=False, weights=weights, input_shape=(size, size, 3))
        except ValueError as error:
            raise UsageError(f"{architecture.backbone} cannot be built at {size} px: {error}") from error
        except Exception as error:  # Keras raises a bare Exception when a download fails
            if weights is None:
                raise
            reason = str(error).splitlines()[0]
            raise DataError(
                f"the ImageNet weights of {architecture.backbone} cannot be downloaded ({reason}); connect "
                "to the internet once (they are then kept in ~/.keras/models), or give a file with "
                "--weights=FILE, or start from random weights with --weights=none"
            ) from error
        preprocess = _preprocessing_layers(preprocess_input)
    if architecture.weights not in ("none", "imagenet"):
        _load_weights(backbone, architecture)
    return backbone, preprocess


def _freeze(backbone: keras.Model, architecture: Architecture) -> None:
    """Marks as trainable what `architecture.fine_tune` names."""
    backbone.trainable = architecture.trainable
    if not architecture.fine_tune.startswith("last:"):
        return
    weighted = [layer for layer in backbone.layers if layer.weights]
    count = int(architecture.fine_tune.removeprefix("last:"))
    if count > len(weighted):
        raise UsageError(
            f"fine_tune=last:{count}: {architecture.backbone} has {len(weighted)} layers with weights; "
            "write all to train it whole"
        )
    for layer in weighted[:-count]:
        layer.trainable = False


def _load_weights(backbone: keras.Model, architecture: Architecture) -> None:
    path = pathlib.Path(architecture.weights)
    if not path.is_file():
        raise DataError(
            f"--weights={path}: there is no such file; give imagenet, none, or a .weights.h5 or .keras file"
        )
    try:
        if path.suffix == ".keras":
            saved = keras.models.load_model(path, compile=False)
            backbone.set_weights(_backbone_in(saved, backbone).get_weights())
        else:
            backbone.load_weights(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: not weights of {architecture.backbone} without its top ({reason})"
        ) from error


def _backbone_in(saved: keras.Model, backbone: keras.Model) -> keras.Model:
    """What of a saved model is a network like `backbone`: a part, as of best.keras, or all of it."""
    shapes = [variable.shape for variable in backbone.weights]
    for part in saved._flatten_layers():
        if isinstance(part, keras.Model) and [variable.shape for variable in part.weights] == shapes:
            return part
    return saved


def _application(name: str):
    """(network factory, its module's preprocess_input) for a name of keras.applications."""
    for candidate in dir(keras.applications):
        factory = getattr(keras.applications, candidate)
        if candidate.lower() == name.lower() and inspect.isfunction(factory):
            return factory, inspect.getmodule(factory).preprocess_input
    raise UsageError(f"there is no backbone {name!r}; it must be one of {', '.join(backbone_names())}")


def _preprocessing_layers(preprocess_input):
    """A network's preprocess_input as plain Keras layers.

    Every preprocess_input of keras.applications is affine in the pixel, perhaps with the
    channels in reverse. It is measured on four pixels instead of copied, so that it is right
    for each network.
    """
    probe = np.zeros((1, 4, 1, 3), np.float32)
    probe[0, 1:, 0] = 255 * np.eye(3)
    measured = np.asarray(preprocess_input(probe.copy()), np.float32)[0, :, 0]
    offset, matrix = measured[0], (measured[1:] - measured[0]) / 255  # matrix[in, out]
    reverse = bool(abs(matrix[0, 2]) > abs(matrix[0, 0]))
    scale = np.diag(matrix[::-1] if reverse else matrix)
    rescale = layers.Rescaling(scale.tolist(), offset=offset.tolist(), dtype="float32", name="preprocess")
    if reverse:
        return lambda pixels: rescale(keras.ops.flip(pixels, axis=-1))
    return rescale


def _head_layers(head: str) -> tuple[layers.Layer, list[layers.Layer]]:
    """(pooling layer, hidden layers)."""
    pooling, hidden = parse_head(head)
    makers = {
        "dropout": lambda rate: layers.Dropout(rate, dtype="float32"),
        "dense": lambda units: layers.Dense(units, activation="relu", dtype="float32"),
    }
    poolings = {
        "avg": layers.GlobalAveragePooling2D,
        "max": layers.GlobalMaxPooling2D,
        "flatten": layers.Flatten,
    }
    return poolings[pooling](), [makers[kind](value) for kind, value in hidden]
