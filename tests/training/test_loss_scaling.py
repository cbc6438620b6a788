import keras
import pytest
import tensorflow as tf

from deepduel.training import loss_scaling


def scaled(**options) -> keras.optimizers.LossScaleOptimizer:
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), **options)
    optimizer.build([keras.Variable([1.0])])
    return optimizer


def test_the_scale_doubles_after_updates_in_a_row_and_halves_after_a_skipped_step():
    optimizer = scaled(initial_scale=8.0, dynamic_growth_steps=2)
    scales = []
    for step in "updated", "updated", "updated", "skipped", "updated", "updated":
        {"updated": loss_scaling.after_update, "skipped": loss_scaling.after_skipped_step}[step](optimizer)
        scales.append(loss_scaling.scale_of(optimizer))
    assert scales == [8, 16, 16, 8, 8, 16]  # the skipped step interrupts the row


def test_gradients_are_divided_by_the_scale():
    (gradient,) = loss_scaling.unscale(scaled(initial_scale=8.0), [tf.constant([16.0])])
    assert gradient.numpy() == pytest.approx([2.0])


def test_an_optimizer_that_scales_no_loss_is_left_alone():
    optimizer, gradients = keras.optimizers.SGD(0.5), [tf.constant([16.0])]
    assert loss_scaling.scale_of(optimizer) is None
    assert loss_scaling.unscale(optimizer, gradients) is gradients
    assert loss_scaling.inner(optimizer) is optimizer
    loss_scaling.after_update(optimizer)
    loss_scaling.after_skipped_step(optimizer)


def test_the_scale_is_that_of_keras_own_updates():
    """LossScaleOptimizer.apply, step by step, on finite and infinite gradients."""
    ours, theirs = (scaled(initial_scale=8.0, dynamic_growth_steps=2) for _ in range(2))
    for gradient in 1.0, 1.0, float("inf"), 1.0, float("inf"), 1.0, 1.0, 1.0:
        theirs.apply([tf.constant([gradient])])
        finite = gradient != float("inf")
        (loss_scaling.after_update if finite else loss_scaling.after_skipped_step)(ours)
        assert loss_scaling.scale_of(ours) == float(theirs.dynamic_scale)
        assert int(ours.step_counter) == int(theirs.step_counter)
