"""The description of a run for TensorBoard never ends a training."""

import types

import keras
import tensorflow as tf

from deepduel.runs import run_description


def test_a_network_that_tensorboard_cannot_draw_is_left_out_with_a_line(capsys):
    tasks = []
    for name, scale in (("plain", 1), ("scaled", 2.0)):
        pixels = keras.Input((4,), name="pixels")
        hidden = keras.layers.Dense(2, name="hidden")(pixels)
        output = hidden if scale == 1 else keras.ops.multiply(scale, hidden)
        model = keras.Model(pixels, output, name=name)
        tasks.append(types.SimpleNamespace(name=name, model=types.SimpleNamespace(saved_model=model)))
    graph = run_description._networks(tasks)
    assert {node.name for node in graph.node} >= {"plain/pixels", "plain/hidden"}
    assert not any(node.name.startswith("scaled/") for node in graph.node)
    assert "scaled: TensorBoard cannot draw its network (AttributeError(" in capsys.readouterr().out


def test_a_network_in_mixed_precision_is_drawn_with_its_data_type_and_no_warning(caplog):
    pixels = keras.Input((4,), name="pixels")
    hidden = keras.layers.Dense(2, name="hidden", dtype="mixed_float16")(pixels)
    task = types.SimpleNamespace(saved_model=keras.Model(pixels, hidden, name="mixed"))
    graph = run_description._networks([types.SimpleNamespace(name="mixed", model=task)])
    (node,) = (node for node in graph.node if node.name == "mixed/hidden")
    assert node.attr["dtype"].type == tf.float16.as_datatype_enum
    assert "Unsupported dtype" not in caplog.text
