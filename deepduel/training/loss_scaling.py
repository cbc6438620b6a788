"""Loss scaling for backbones trained in float16: what Keras' LossScaleOptimizer does, step by step.

`LossScaleOptimizer.apply` cannot be called in a distributed step: it branches with a tf.cond of its own,
which must be outside the replicas. Here the caller branches on whether all gradients are finite (see
`updates`) and calls `after_update` or `after_skipped_step`. These functions leave an optimizer alone that
scales no loss.
"""

import keras
import tensorflow as tf


def scale_of(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The factor that the loss is multiplied with now; None for an optimizer that scales no loss."""
    return float(optimizer.dynamic_scale.numpy()) if _scales(optimizer) else None


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that updates the weights."""
    return optimizer.inner_optimizer if _scales(optimizer) else optimizer


def unscale(optimizer: keras.optimizers.Optimizer, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """The gradients of the loss itself, from those of the scaled loss."""
    if not _scales(optimizer):
        return gradients
    return [gradient / optimizer.dynamic_scale.value for gradient in gradients]


def may_overflow(optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
    """bool scalar: whether a gradient may exceed float16's range because of the scale, which is above 1."""
    return optimizer.dynamic_scale.value > 1.0 if _scales(optimizer) else tf.constant(False)


def after_update(optimizer: keras.optimizers.Optimizer) -> None:
    """Doubles the scale after `dynamic_growth_steps` updates in a row."""
    if not _scales(optimizer):
        return
    scale, count = optimizer.dynamic_scale.value, optimizer.step_counter.value + 1
    grows = count >= optimizer.dynamic_growth_steps
    optimizer.step_counter.assign(tf.where(grows, tf.zeros_like(count), count))
    optimizer.dynamic_scale.assign(tf.where(grows, scale * 2.0, scale))


def after_skipped_step(optimizer: keras.optimizers.Optimizer) -> None:
    """Halves the scale: a gradient overflowed."""
    if not _scales(optimizer):
        return
    optimizer.step_counter.assign(0)
    optimizer.dynamic_scale.assign(optimizer.dynamic_scale.value * 0.5)


def _scales(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
