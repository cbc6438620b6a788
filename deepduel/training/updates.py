"""One update of a task's weights, or none when its loss or a gradient is not finite."""

import keras
import tensorflow as tf

from deepduel.training import loss_scaling
from deepduel.training.passes import Passes
from deepduel.training.task import Task
from deepduel.training.task_losses import Targets, losses


def all_finite(targets: Targets, logits: tf.Tensor, gradients: list[tf.Tensor]) -> tf.Tensor:
    """bool scalar: whether the losses of the labelled images and all gradients are finite numbers."""
    return _losses_finite(targets, logits) & tf.math.is_finite(tf.linalg.global_norm(gradients))


def scale_overflowed(task: Task, targets: Targets, logits: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
    """bool scalar: whether a step is skipped only because its scaled gradients are too large for float16.

    That is how a loss scale finds its height: it doubles until this happens, and is halved. Nothing is wrong
    with such a batch.
    """
    return ~finite & _losses_finite(targets, logits) & loss_scaling.may_overflow(task.optimizer)


def _losses_finite(targets: Targets, logits: tf.Tensor) -> tf.Tensor:
    labelled = tf.boolean_mask(losses(targets, logits), targets.weight > 0)
    return tf.reduce_all(tf.math.is_finite(labelled))


def apply_if_finite(
    task: Task,
    gradients: list[tf.Tensor],
    finite: tf.Tensor,
    strategy: tf.distribute.Strategy,
    passes: Passes,
) -> None:
    """Updates the task's weights, their averages and the loss scale; without `finite` only lowers the scale.

    Args:
      gradients: of the scaled loss, summed over all devices, in the order of `task.trained_variables`.
      finite: bool scalar of `all_finite`.
      strategy: that the variables were created under. Keras' optimizers sum the gradients of all devices
        after clipping each; these are summed and clipped already, so each device hands in its share.
      passes: runs the update on a single device. A strategy joins its devices, which a compiled function
        cannot.
    """
    optimizer, devices = task.optimizer, strategy.num_replicas_in_sync

    def apply() -> None:
        unscaled = loss_scaling.unscale(optimizer, gradients)
        if task.clip_norm:
            unscaled, _ = tf.clip_by_global_norm(unscaled, task.clip_norm)
        inner = loss_scaling.inner(optimizer)

        def on_one_device() -> None:
            inner.apply([gradient / devices for gradient in unscaled], task.trained_variables)

        if devices > 1:
            strategy.run(on_one_device)
        else:
            passes.update(task, unscaled, inner.apply)
        task.averages.update(inner.iterations.value)
        loss_scaling.after_update(optimizer)

    tf.cond(finite, apply, lambda: loss_scaling.after_skipped_step(optimizer))


def statistics(task: Task) -> list[tuple[keras.Variable, tf.Tensor]]:
    """The variables that the task's backbone changes in its forward pass, each with a copy of its value.

    These are the moving averages of batch norm and the seeds of dropout; empty unless this task trains them.
    """
    if not task.trains_statistics or task.shares_extractor:
        return []
    variables = task.model.extractor.non_trainable_variables
    return [(variable, tf.identity(variable.value)) for variable in variables]


def restore_unless_finite(copies: list[tuple[keras.Variable, tf.Tensor]], finite: tf.Tensor) -> None:
    """Restores the variables when the step is skipped: batch norm has seen the batch too."""
    for variable, value in copies:
        variable.assign(tf.where(finite, variable, value))
