import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deepduel.networks import keras_graph, task_model
from deepduel.networks.architecture import Architecture
from deepduel.networks.folding import Folded
from tests.helpers.hiding_model import HidingModel, hiding

pytestmark = pytest.mark.numeric

SIDE = 9


def randomised(model, seed=0):
    """The model with batch norms that do something: statistics, scales and offsets of their own."""
    rng = np.random.default_rng(seed)
    for layer in keras_graph.flat_layers(model):
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def pixels(channels=3, seed=1, side=SIDE):
    return np.random.default_rng(seed).normal(0, 1, (4, side, side, channels)).astype(np.float32)


def built(*chain, channels=3):
    inputs = outputs = keras.Input((SIDE, SIDE, channels))
    for layer in chain:
        outputs = layer(outputs)
    return randomised(keras.Model(inputs, outputs))


def folds(model) -> int:
    """How many batch norms are folded, by the operations of the graph: each takes a root."""

    def roots(function):
        graph = tf.function(function, autograph=False).get_concrete_function(
            tf.TensorSpec((4, *model.inputs[0].shape[1:]), tf.float32)
        )
        return sum(operation.type == "Rsqrt" for operation in graph.graph.get_operations())

    return roots(lambda images: model(images, training=False)) - roots(Folded(model))


# Folded weights are rounded once more and summed in the order of the processor's kernels: some roundings of
# float32 (6e-8 each), relative to the largest output.
def assert_equal_in_inference(model, images=None, rtol=1e-5):
    images = pixels() if images is None else images
    expected = model(images, training=False).numpy()
    got = tf.function(Folded(model), autograph=False)(images).numpy()
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(5, 3),
        lambda: layers.Conv2D(5, 3, padding="same", strides=2, use_bias=False),
        lambda: layers.Conv2D(5, 3, dilation_rate=2, bias_initializer="random_normal"),
        lambda: layers.Conv2D(6, 1, groups=3, bias_initializer="random_normal"),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False),
        lambda: layers.DepthwiseConv2D(3, strides=2, bias_initializer="random_normal"),
        lambda: layers.SeparableConv2D(5, 3, padding="same", use_bias=False),
        lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2, bias_initializer="random_normal"),
        lambda: layers.Dense(5, bias_initializer="random_normal"),
    ],
)
@pytest.mark.parametrize(
    "norm",
    [
        lambda: layers.BatchNormalization(),
        lambda: layers.BatchNormalization(axis=3, scale=False, epsilon=0.1),
        lambda: layers.BatchNormalization(center=False),
        lambda: layers.BatchNormalization(center=False, scale=False),
    ],
)
def test_a_batch_norm_goes_into_the_layer_before_it(layer, norm):
    model = built(layer(), norm(), layers.ReLU())
    assert folds(model) == 1
    assert_equal_in_inference(model)


def test_channels_may_come_first():
    inputs = keras.Input((3, SIDE, SIDE))
    hidden = layers.SeparableConv2D(4, 3, data_format="channels_first")(inputs)
    model = randomised(keras.Model(inputs, layers.BatchNormalization(axis=1)(hidden)))
    assert folds(model) == 1
    assert_equal_in_inference(model, pixels().transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "chain",
    [
        lambda: (layers.BatchNormalization(), layers.Conv2D(4, 3, padding="same")),
        lambda: (layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()),
        lambda: (layers.Conv2D(4, 3), layers.ReLU(), layers.BatchNormalization()),
        lambda: (layers.Conv2D(SIDE - 2, 3), layers.BatchNormalization(axis=1)),
        lambda: (layers.Conv2D(4, 3, dtype="mixed_bfloat16"), layers.BatchNormalization(dtype="float32")),
    ],
    ids=["before", "activated", "relu between", "other axis", "other dtype"],
)
def test_any_other_batch_norm_stays(chain):
    model = built(*chain())
    assert folds(model) == 0
    assert_equal_in_inference(model)


def test_a_convolution_whose_output_is_used_elsewhere_stays():
    inputs = keras.Input((SIDE, SIDE, 3))
    hidden = layers.Conv2D(4, 3)(inputs)
    normalised = layers.BatchNormalization()(hidden)
    added = randomised(keras.Model(inputs, layers.Add()([hidden, normalised])))
    assert folds(added) == 0
    assert_equal_in_inference(added)


@pytest.mark.parametrize("shared", ["convolution", "norm", "both"])
def test_a_layer_that_is_used_twice_stays(shared):
    inputs = keras.Input((SIDE, SIDE, 3))
    convolution, norm = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    hidden = norm(convolution(inputs))
    again = layers.Conv2D(3, 3, padding="same") if shared == "norm" else convolution
    another = layers.BatchNormalization() if shared == "convolution" else norm
    model = randomised(keras.Model(inputs, another(again(layers.ReLU()(hidden)))))
    assert folds(model) == 0
    assert_equal_in_inference(model)


def test_what_a_layer_does_in_other_models_does_not_matter():
    inputs = keras.Input((SIDE, SIDE, 3))
    hidden = layers.Conv2D(4, 3)(inputs)
    model = randomised(keras.Model(inputs, layers.BatchNormalization()(hidden)))
    keras.Model(inputs, layers.ReLU()(hidden))
    assert folds(model) == 1
    assert_equal_in_inference(model)


def test_models_within_the_model_are_folded():
    inner = built(layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU())
    chain = keras.Sequential([keras.Input(inner.output.shape[1:]), layers.Conv2D(4, 3), layers.Dropout(0.5)])
    outer = built(layers.Rescaling(0.5), inner, chain, layers.BatchNormalization())
    assert folds(outer) == 1  # not the one after the chain, whose last layer is no convolution
    assert_equal_in_inference(outer)


def test_a_model_that_is_not_functional_runs_as_it_is():
    class Doubling(keras.Model):
        def call(self, inputs, training=None):
            return inputs * (3.0 if training else 2.0)

    np.testing.assert_array_equal(Folded(Doubling())(pixels()), 2 * pixels())


def test_dropout_and_batch_norm_are_in_inference_mode_even_where_the_model_says_otherwise():
    inputs = keras.Input((SIDE, SIDE, 3))
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs), training=True)
    outputs = layers.BatchNormalization()(layers.Dropout(0.5)(hidden, training=True), training=True)
    model = randomised(keras.Model(inputs, outputs))
    before = model.get_weights()
    assert_equal_in_inference(model)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_the_model_itself_stays_as_it_is():
    model = built(layers.Conv2D(4, 3), layers.BatchNormalization())
    weights, config = model.get_weights(), model.get_config()
    folded = Folded(model)
    folded(pixels())
    assert all((a == b).all() for a, b in zip(weights, model.get_weights(), strict=True))
    assert model.get_config() == config
    assert [variable.shape for variable in folded.variables] == [(3, 3, 3, 4), (4,)]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_half_and_is_as_close_to_float32_as_unfolded(precision):
    extractors = {}
    for name in ("float32", precision):
        architecture = Architecture("small_cnn", "avg", 16, precision=name)
        extractors[name] = randomised(task_model.build("a", architecture, ("x", "y"), seed=3).extractor)
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32)
    truth = extractors["float32"](images, training=False).numpy()
    folded = Folded(extractors[precision])
    assert {str(variable.dtype) for variable in folded.variables} == {precision.removeprefix("mixed_")}
    off = np.abs(folded(images) - truth).mean()
    assert 0 < off < 2.5 * np.abs(extractors[precision](images, training=False) - truth).mean()


@pytest.mark.parametrize(
    ("backbone", "size", "count"),
    [("mobilenetv3small", 32, 34), ("small_cnn", 16, 9), ("forensic_cnn", 8, 16), ("resnet50v2", 32, 32)],
)
def test_real_networks_are_folded(backbone, size, count):
    extractor = randomised(task_model.build("a", Architecture(backbone, "avg", size), ("x", "y")).extractor)
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    assert len(Folded(extractor).variables) == 2 * count
    assert_equal_in_inference(extractor, images)


def test_xceptions_convolutions_and_activations_become_one_operation():
    """TensorFlow's graph optimizer would fail without the fences (see folding)."""
    from tensorflow.python.eager import context

    extractor = task_model.build("a", Architecture("xception", "avg", 71), ("x", "y")).extractor
    folded = tf.function(Folded(extractor), autograph=False)
    context.context().enable_graph_collection()
    folded(tf.zeros((1, 71, 71, 3)))
    metadata = context.context().export_run_metadata()
    context.context().disable_graph_collection()
    nodes = [
        node
        for graphs in metadata.function_graphs
        for graph in graphs.partition_graphs
        for node in graph.node
    ]
    fused = [list(node.attr["fused_ops"].list.s) for node in nodes if "FusedConv2D" in node.op]
    assert sum(names[-1] == b"Relu" for names in fused) == 24


@pytest.mark.parametrize("hidden", ["_nodes_by_depth", "_run_through_graph"])
def test_without_a_private_name_of_keras_the_network_runs_unfolded(hidden):
    inputs = keras.Input((SIDE, SIDE, 3))
    convolved = layers.Conv2D(4, 3, use_bias=False)(inputs)
    model = randomised(HidingModel(inputs, layers.BatchNormalization()(convolved)))
    with hiding(hidden), pytest.warns(RuntimeWarning, match=f"has no {hidden}"):
        folded = Folded(model)
    assert folded.variables == []
    np.testing.assert_array_equal(folded(pixels()), model(pixels(), training=False))
    assert len(Folded(model).variables) == 2
