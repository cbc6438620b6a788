"""The layers of a model and its graph."""

import keras
import pytest

from deepduel.networks import keras_graph
from tests.helpers.hiding_model import HidingModel, hiding


def model_with_a_model():
    inner_inputs = keras.Input((4,))
    inner = keras.Model(inner_inputs, keras.layers.Dense(3, name="inside")(inner_inputs), name="inner")
    inputs = keras.Input((4,), name="pixels")
    return keras.Model(inputs, keras.layers.ReLU(name="last")(inner(inputs)), name="outer")


def test_flat_layers_enter_models_in_the_model():
    names = [layer.name for layer in keras_graph.flat_layers(model_with_a_model())]
    assert [name for name in names if not name.startswith("input")] == [
        "outer", "pixels", "inner", "inside", "last",
    ]  # fmt: skip


def test_flat_layers_are_kerass_own():
    model = model_with_a_model()
    assert set(map(id, keras_graph.flat_layers(model))) == set(map(id, model._flatten_layers()))


def test_nodes_are_the_calls_of_layers_with_their_tensors():
    model = model_with_a_model()
    nodes = {node.operation.name: node for node in keras_graph.nodes(model)}
    assert set(nodes) == {"inner", "last"}
    assert nodes["inner"].outputs[0] is nodes["last"].input_tensors[0]


def test_a_model_without_graph_or_with_several_outputs_has_no_nodes():
    inputs = keras.Input((4,))
    assert keras_graph.nodes(keras.Model(inputs, [inputs, keras.layers.ReLU()(inputs)])) is None

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    assert keras_graph.nodes(Own()) is None


def test_a_layer_that_was_never_called_has_no_output_shapes():
    assert keras_graph.output_shapes(keras.layers.Dense(3)) == []
    assert keras_graph.output_shapes(model_with_a_model().get_layer("last")) == [(None, 3)]


@pytest.mark.parametrize("hidden", ["_nodes_by_depth", "_run_through_graph"])
def test_one_hidden_name_is_one_warning_that_names_it(hidden):
    inputs = keras.Input((4,))
    model = HidingModel(inputs, keras.layers.ReLU()(inputs))
    assert len(keras_graph.nodes(model)) == 1
    with hiding(hidden), pytest.warns(RuntimeWarning) as warned:
        assert keras_graph.nodes(model) is None
    assert f"has no {hidden}: batch norms are not folded" in str(warned.pop().message)
    assert not warned.list
