"""The description of a run for TensorBoard never ends a training."""

import types

import keras

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
