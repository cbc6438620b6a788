import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.networks.compiled import compiled

IMAGES = tf.TensorSpec((None, 4), tf.float32)


def swish_step(seen):
    """An update of a variable with swish's own gradient, in a loop and a branch; `seen` gets its graphs."""
    variable = keras.Variable(np.ones(4, "float32"))
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([variable])

    def step(batch):
        seen.append(weakref.ref(tf.compat.v1.get_default_graph()))

        def body(number, total):
            seen.append(weakref.ref(tf.compat.v1.get_default_graph()))
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(keras.activations.silu(batch * variable))
            return number + 1, total + tape.gradient(loss, variable.value)

        _, total = tf.while_loop(lambda number, _: number < 3, body, (0, tf.zeros(4)))

        def update():
            optimizer.apply([total], [variable])

        tf.cond(tf.reduce_all(tf.math.is_finite(total)), update, lambda: None)
        return total

    return step


@pytest.mark.own_process
def test_a_step_that_is_dropped_leaves_no_graph():
    graphs = []
    step = compiled(swish_step(graphs), IMAGES)
    first, second = (step(np.ones((2, 4), "float32")).numpy() for _ in range(2))
    assert (first != second).all()  # it updates
    del step
    gc.collect()
    assert len(graphs) >= 2
    assert not [graph for graph in graphs if graph() is not None]


def test_gradients_that_others_take_stay_as_they_are():
    """Another function's swish, traced before, gets its gradient only afterwards."""
    theirs = tf.function(keras.activations.silu, input_signature=[IMAGES])
    theirs.get_concrete_function()
    compiled(swish_step([]), IMAGES)(np.ones((2, 4), "float32"))
    ones = tf.ones((1, 4))
    with tf.GradientTape() as tape:
        tape.watch(ones)
        result = theirs(ones)
    np.testing.assert_allclose(tape.gradient(result, ones), np.full((1, 4), 0.9276705), rtol=1e-5)


def test_it_is_traced_once():
    traces = []
    double = compiled(lambda batch: traces.append(batch) or 2 * batch, IMAGES)
    assert double(np.ones((1, 4), "float32")).numpy().tolist() == [[2] * 4]
    assert double(np.ones((3, 4), "float32")).shape == (3, 4)
    assert len(traces) == 1


def test_a_tensorflow_with_another_registry_keeps_its_graphs_and_works(monkeypatch):
    from deepduel.networks import compiled as module

    monkeypatch.setattr(module.ops, "gradient_registry", object())
    assert compiled(lambda batch: 2 * batch, IMAGES)(np.ones((1, 4), "float32")).shape == (1, 4)
