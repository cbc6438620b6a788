"""A task's model: extractor, head, and the two joined as it is saved.

Two Keras models:

    extractor   float32 [B, S, S, 3] pixels 0..255 -> features [B, …]: input filter, preprocessing,
                backbone, pooling
    head        features -> float32 logits [B, classes]

Training needs the two separately: a frozen extractor runs in micro-batches, without gradients, and with its
batch norms folded (`TaskModel.frozen`). `saved_model` joins them and ends in float32 probabilities
[B, classes]. It consists of Keras' own layers, so that `keras.models.load_model` needs no import of deepduel.
"""

import dataclasses
import functools
import pathlib

import keras
from keras import layers

from deepduel.networks import backbones, fused_batch_norm, input_filters, keras_file, keras_graph
from deepduel.networks.architecture import Architecture, parse_head
from deepduel.networks.folding import Folded
from tfrecords_tools.errors import DataError, UsageError

ORIGINAL = {  # (backbone, head) of the two models of Deepfake Duel
    "category": ("xception", "avg,dropout:0.5,dense:512"),
    "authenticity": ("vgg16", "flatten,dense:2048,dense:2048"),
}


@dataclasses.dataclass(frozen=True)
class TaskModel:
    """The Keras models of a task: `extractor`, `head`, and `saved_model`, which joins them."""

    architecture: Architecture
    classes: tuple[str, ...]
    extractor: keras.Model
    head: keras.Model
    saved_model: keras.Model

    @functools.cached_property
    def frozen(self) -> Folded:
        """The extractor in inference mode, with the weights that it has when this is first used."""
        return Folded(self.extractor)


def build(
    name: str,
    architecture: Architecture,
    classes: tuple[str, ...],
    *,
    seed: int = 0,
    extractor: keras.Model | None = None,
    weights: pathlib.Path | None = None,
) -> TaskModel:
    """Builds one task's model; the same seed gives the same initial weights.

    Args:
      name: name of the task.
      architecture: options of the network.
      classes: names of the classes, in the order of the outputs.
      seed: random seed of the initial weights.
      extractor: an extractor of the same architecture that is shared with another task; None builds one.
      weights: copy of the file that `architecture.weights` names, to be read instead of it.

    Raises:
      UsageError: the backbone cannot be built at this size.
      DataError: the weights cannot be downloaded, or belong to another network.
    """
    keras.utils.set_random_seed(seed % 2**32)
    pixels = keras.Input((architecture.image_size, architecture.image_size, 3), name="pixels")
    extractor = extractor or _extractor(name, architecture, pixels, weights)

    inputs = keras.Input(extractor.output.shape[1:], name="features", dtype="float32")
    outputs = inputs
    for layer in _hidden_layers(architecture.head):
        outputs = layer(outputs)
    logits = layers.Dense(len(classes), dtype="float32", name="logits")(outputs)
    head = keras.Model(inputs, logits, name=f"{name}_head")

    saved_model = keras.Model(pixels, _probabilities(architecture, pixels, extractor, head), name=name)
    return TaskModel(architecture, classes, extractor, head, saved_model)


def _probabilities(
    architecture: Architecture, pixels: keras.KerasTensor, extractor: keras.Model, head: keras.Model
) -> keras.KerasTensor:
    cast = layers.Activation("linear", dtype="float32", name="features_float32")
    softmax = layers.Softmax(dtype="float32", name="probabilities")
    views = [pixels, keras.ops.flip(pixels, axis=2)] if architecture.mirrored else [pixels]
    probabilities = [softmax(head(cast(extractor(view)))) for view in views]
    return layers.Average(dtype="float32", name="mean")(probabilities) if len(views) > 1 else probabilities[0]


def _extractor(
    name: str, architecture: Architecture, pixels: keras.KerasTensor, weights: pathlib.Path | None
) -> keras.Model:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(architecture.precision)
    try:
        backbone, preprocess = backbones.build(
            architecture.backbone,
            architecture.image_size,
            imagenet=architecture.weights == "imagenet",
            stem_stride=architecture.stem_stride,
        )
        if architecture.weights not in ("none", "imagenet"):
            _load_weights(backbone, architecture, weights or weights_file(architecture.weights))
        _freeze(backbone, architecture)
        filtered = input_filters.FILTERS[architecture.input_filter](pixels)
        features = backbone(preprocess(filtered), training=None if architecture.trains_statistics else False)
    finally:
        keras.config.set_dtype_policy(policy)
    features = _pooling_layer(architecture.head)(features)
    extractor = keras.Model(pixels, features, name=f"{name}_extractor")
    if architecture.trains_statistics:
        fused_batch_norm.fuse(extractor)
    return extractor


def _freeze(backbone: keras.Model, architecture: Architecture) -> None:
    """Makes only the layers trainable that `architecture.fine_tune` names."""
    backbone.trainable = architecture.trainable
    if not architecture.fine_tune.startswith("last:"):
        return
    weighted = [layer for layer in backbone.layers if layer.weights]
    count = int(architecture.fine_tune.removeprefix("last:"))
    if count > len(weighted):
        raise UsageError(
            f"fine_tune=last:{count}: {architecture.backbone} has only {len(weighted)} layers with weights; "
            "fine_tune=all trains all of them"
        )
    for layer in weighted[:-count]:
        layer.trainable = False


def weights_file(name: str) -> pathlib.Path:
    """The file that `Architecture.weights` names. Raises DataError if there is none."""
    path = pathlib.Path(name)
    if not path.is_file():
        raise DataError(
            f"weights={path}: there is no such file; give imagenet, none, or a .weights.h5 or .keras file"
        )
    return path


def _load_weights(backbone: keras.Model, architecture: Architecture, path: pathlib.Path) -> None:
    try:
        if path.suffix == ".keras":
            saved = keras_file.load(path)
            backbone.set_weights(_backbone_in(saved, backbone).get_weights())
        else:
            backbone.load_weights(path)
    except DataError:
        raise
    except Exception as error:  # zipfile, h5py, json and Keras raise errors of their own
        raise DataError(
            f"{architecture.weights}: these are not weights of {architecture.backbone} without its top "
            f"({keras_file.reason(error)}); save them with include_top=False, or name the backbone "
            "that they belong to"
        ) from error


def _backbone_in(saved: keras.Model, backbone: keras.Model) -> keras.Model:
    """The part of a saved model that is a network like `backbone`, or else the whole model."""
    shapes = [variable.shape for variable in backbone.weights]
    for part in keras_graph.flat_layers(saved):
        if isinstance(part, keras.Model) and [variable.shape for variable in part.weights] == shapes:
            return part
    return saved


def _pooling_layer(head: str) -> layers.Layer:
    poolings = {
        "avg": layers.GlobalAveragePooling2D,
        "max": layers.GlobalMaxPooling2D,
        "flatten": layers.Flatten,
    }
    return poolings[parse_head(head)[0]]()


def _hidden_layers(head: str) -> list[layers.Layer]:
    makers = {
        "dropout": lambda rate: layers.Dropout(rate, dtype="float32"),
        "dense": lambda units: layers.Dense(units, activation="relu", dtype="float32"),
    }
    return [makers[kind](value) for kind, value in parse_head(head)[1]]
