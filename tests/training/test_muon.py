"""Muon: what it does to matrices, which variables it updates, and that AdamW's part is Keras' AdamW."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.training.muon import Muon, is_hidden_kernel, orthogonalised

pytestmark = pytest.mark.numeric


def variable(shape, name="kernel"):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return keras.Variable(values, name=name)


@pytest.mark.parametrize("shape", [(40, 64), (300, 48), (32, 32)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_become_alike_and_the_vectors_stay(shape, scale):
    matrix = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    orthogonal = orthogonalised(tf.constant(matrix * scale)).numpy()
    inner = u.T @ orthogonal @ v.T
    assert np.diag(inner).min() > 0.6 and np.diag(inner).max() < 1.3
    assert np.abs(inner - np.diag(np.diag(inner))).max() < 0.02


def test_an_all_zero_gradient_changes_nothing():
    assert np.array_equal(orthogonalised(tf.zeros((40, 40))), np.zeros((40, 40)))


@pytest.mark.parametrize(
    ("shape", "name", "hidden"),
    [
        ((3, 3, 32, 64), "kernel", True),
        ((512, 64), "kernel", True),
        ((3, 3, 3, 64), "kernel", False),  # 27 rows: the first of a network
        ((3, 3, 64, 1), "kernel", False),  # depthwise
        ((64,), "gamma", False),
        ((512, 64), "logits", False),
    ],
)
def test_hidden_kernels_alone_are_orthogonalised(shape, name, hidden):
    assert is_hidden_kernel(variable(shape, name)) is hidden


def test_an_update_of_a_kernel_is_as_large_as_adamws():
    kernel = variable((3, 3, 32, 64))
    before = kernel.numpy()
    optimizer = Muon(0.01)
    optimizer.build([kernel])
    optimizer.apply([np.random.default_rng(2).normal(size=kernel.shape).astype(np.float32)], [kernel])
    moved = kernel.numpy() - before
    assert np.sqrt(np.square(moved).mean()) == pytest.approx(0.01 * 0.2, rel=0.2)


def test_what_is_no_hidden_kernel_is_updated_as_by_keras_adamw():
    ours, theirs = variable((7,), "gamma"), variable((7,), "gamma")
    optimizers = Muon(0.01, weight_decay=0.1), keras.optimizers.AdamW(0.01, weight_decay=0.1)
    draws = np.random.default_rng(3)
    for _ in range(5):
        gradient = draws.normal(size=7).astype(np.float32)
        for optimizer, weight in zip(optimizers, (ours, theirs), strict=True):
            optimizer.apply([gradient], [weight])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_it_learns_in_bfloat16_too_and_is_restored_from_its_variables():
    features = np.random.default_rng(4).normal(size=(64, 40)).astype(np.float32)
    targets = features @ np.random.default_rng(5).normal(size=(40, 32)).astype(np.float32)

    def run(optimizer, kernel, steps):
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(features @ kernel.value - targets))
            optimizer.apply([tape.gradient(loss, kernel.value)], [kernel])
        return float(loss)

    kernel = variable((40, 32))
    optimizer = Muon(0.5, compute_dtype="bfloat16")
    optimizer.build([kernel])
    first = run(optimizer, kernel, 1)
    kept = [part.numpy() for part in (kernel, *optimizer.variables)]
    assert run(optimizer, kernel, 20) < 0.5 * first
    other, again = variable((40, 32)), Muon.from_config(optimizer.get_config())
    again.build([other])
    for part, value in zip((other, *again.variables), kept, strict=True):
        part.assign(value)
    run(again, other, 20)
    assert np.array_equal(other, kernel)
