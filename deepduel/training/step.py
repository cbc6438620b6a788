"""What one device computes of a batch: every task's logits and gradients.

    rows of the batch (see `inputs` and `prepare`)
      │  micro-batch by micro-batch (`accumulated_gradients`):
      │    augment   uint8 [m, H, W, 3] -> float32 [m, S, S, 3]   once per (augmentation, size, mixing)
      │    extract   -> features [m, …]                            frozen backbones, no gradients
      │    or extract, head, loss, gradients, summed               trained backbones
      ▼
    all rows (`head_gradients`): head -> logits, loss, gradients   frozen backbones

With a frozen backbone in inference mode the features of a batch are exactly those of its
micro-batches. With a trained one the gradients of the micro-batches, each divided by the weight of the entire
batch, sum to those of the batch, unless batch-norm statistics are trained: those are of a micro-batch.

Tasks that share an extractor get their features from one pass; their losses are summed, and the gradient
of the sum is the backbone's.

Dropout in the heads is drawn for the entire batch beforehand, so that neither the micro-batches nor the
number of devices changes it.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from deepduel.augmentation import mixing
from deepduel.augmentation.transform import augment, resize
from deepduel.networks.micro_batches import in_micro_batches
from deepduel.training.passes import Gradients, Passes, Tensors
from deepduel.training.task import Task
from deepduel.training.team import whole

_PLAIN = Passes()


def prepare(tasks: Sequence[Task], batch: dict) -> dict:
    """All that is decided once for the entire batch, of which a worker of a team may read a part.

    Returns:
      A nest of tensors [B, …]. "mixes": {(mixing, size): Mix}. "targets" and "masks": for each task by name
      its Targets, and the factors of each dropout layer of its head.
    """
    rows = whole(batch)
    mixes = {
        (task.mixing, task.size): mixing.plan(task.mixing, task.size, batch["seeds"], weight=batch["weight"])
        for task in tasks
        if task.mixing
    }
    targets = {
        task.name: task.objective.targets(
            rows["labels"][task.name], rows["weight"], mixes.get((task.mixing, task.size)), task.classes
        )
        for task in tasks
    }
    count = tf.shape(rows["weight"])[0]
    masks = {task.name: draw_masks(task.model.head, count) for task in tasks}
    return {"mixes": mixes, "targets": targets, "masks": masks}


def inputs(batch: dict) -> dict:
    """What the networks take of a batch: "images" and "seeds", or "features" (see the module features)."""
    return {name: batch[name] for name in ("images", "seeds", "features") if name in batch}


def head_gradients(
    tasks: Sequence[Task], features: Tensors, rows: dict, batch: dict, *, passes: Passes = _PLAIN
) -> tuple[Tensors, Gradients]:
    """Logits [b, classes] and gradients of some rows of tasks whose backbones are frozen.

    Args:
      features: by task, [b, …].
      rows: the results of `inputs` and `prepare` in one dict, for the rows of this device.
      batch: likewise, with the result of `prepare` for all rows of the batch: losses are divided by its
        weights, so that the gradients of all rows sum to those of the batch.
      passes: runs the networks.

    Returns:
      ({task: logits}, {task: gradients of the scaled loss in the order of Task.trained_variables}).
    """
    logits: Tensors = {}
    gradients: Gradients = {}
    for task in tasks:
        of_task = passes.backward(
            [task], features[task.name], rows["masks"], rows["targets"], _weights(tasks, batch)
        )
        logits |= of_task[0]
        gradients |= of_task[1]
    return logits, gradients


def accumulated_gradients(
    tasks: Sequence[Task], rows: dict, batch: dict, *, micro_batch: int, passes: Passes = _PLAIN
) -> tuple[Tensors, Gradients]:
    """As `head_gradients`, from images, and for frozen and trained backbones.

    Args:
      rows, batch: see `head_gradients`; the partners in mixing may be any images of the batch.
      micro_batch: images per pass through augmentation and backbones.
      passes: runs the networks.
    """
    weights = _weights(tasks, batch)

    def part(rows: dict, filled: tf.Tensor) -> tuple[Tensors, Gradients]:
        filled = tf.maximum(filled, 1)  # an empty batch has no statistics
        images_by_task = _augmented(tasks, rows, batch)
        outputs: Tensors = {}
        summed: Gradients = {}
        for tasks_with_this_extractor in group_by_extractor(tasks):
            owner = tasks_with_this_extractor[0]
            images = images_by_task[owner.name]
            if not owner.trainable:
                features = tf.stop_gradient(passes.features(owner, images))
                outputs |= {task.name: features for task in tasks_with_this_extractor}
                continue
            masks, targets = rows["masks"], rows["targets"]
            if owner.trains_statistics or not passes.compiled:
                # Without the rows of zeros that fill the micro-batch: batch norm would see them. They have no
                # weight in the loss, and XLA compiles each number of rows anew.
                images, masks, targets = tf.nest.map_structure(
                    lambda row: row[:filled], (images, masks, targets)
                )
            logits, gradients = passes.backward(tasks_with_this_extractor, images, masks, targets, weights)
            summed |= gradients
            for name, array in logits.items():
                outputs[name] = tf.pad(array, [[0, micro_batch - tf.shape(array)[0]], [0, 0]])
        return outputs, summed

    outputs, gradients = in_micro_batches(
        part,
        rows,
        rows={task.name: _output_spec(task) for task in tasks},
        sums={task.name: _gradient_specs(task) for task in tasks if task.trainable},
        micro_batch=micro_batch,
    )
    frozen = [task for task in tasks if not task.trainable]
    logits, gradients_of_heads = head_gradients(frozen, outputs, rows, batch, passes=passes)
    return outputs | logits, gradients | gradients_of_heads


def group_by_extractor(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks in groups that share an extractor; the first of each owns it."""
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        groups.setdefault(id(task.model.extractor), []).append(task)
    return list(groups.values())


def predict(tasks: Sequence[Task], rows: dict, *, micro_batch: int, passes: Passes = _PLAIN) -> Tensors:
    """{task: logits [b, classes]} of rows without augmentation (see `extract`); `rows` as from `inputs`."""
    if "features" in rows:
        return {task.name: _logits(task, rows["features"][task.name]) for task in tasks}

    def part(rows: dict, filled: tf.Tensor) -> tuple[Tensors, tuple]:
        features = _features(tasks, _resized(tasks, rows["images"]), passes)
        return {task.name: _logits(task, features[task.name]) for task in tasks}, ()

    specs = {task.name: tf.TensorSpec((task.classes,), tf.float32) for task in tasks}
    return in_micro_batches(part, rows, rows=specs, micro_batch=micro_batch)[0]


def extract(
    tasks: Sequence[Task],
    images: tf.Tensor,
    seeds: tf.Tensor,
    *,
    augmented: bool,
    micro_batch: int,
    passes: Passes = _PLAIN,
) -> Tensors:
    """{task: features [B, …]} of images [B, H, W, 3], of tasks whose backbones are frozen.

    Args:
      seeds: int32 [B, 2], of the augmentation.
      augmented: whether to augment as in training, but for mixing; else images are only resized, or cropped
        at the centre where training crops at random.
    """

    def part(rows: tuple[tf.Tensor, tf.Tensor], filled: tf.Tensor) -> tuple[Tensors, tuple]:
        images, seeds = rows
        inputs = _augmented_unmixed(tasks, images, seeds) if augmented else _resized(tasks, images)
        return _features(tasks, inputs, passes), ()

    specs = {task.name: _output_spec(task) for task in tasks}
    return in_micro_batches(part, (images, seeds), rows=specs, micro_batch=micro_batch)[0]


def draw_masks(head: keras.Model, count: tf.Tensor) -> list[tf.Tensor]:
    """The factors [count, …] of each dropout layer: what it makes of a batch of ones, with its own seed."""
    return [
        layer(tf.ones((count, *layer.input.shape[1:])), training=True)
        for layer in head.layers
        if isinstance(layer, keras.layers.Dropout)
    ]


def _weights(tasks: Sequence[Task], batch: dict) -> Tensors:
    """{task: the sum of the batch's weights}."""
    return {task.name: tf.reduce_sum(batch["targets"][task.name].weight) for task in tasks}


def _logits(task: Task, features: tf.Tensor) -> tf.Tensor:
    return task.model.head(tf.cast(features, tf.float32), training=False)


def _features(tasks: Sequence[Task], images: Tensors, passes: Passes) -> Tensors:
    features: Tensors = {}
    for tasks_with_this_extractor in group_by_extractor(tasks):
        owner = tasks_with_this_extractor[0]
        names = (task.name for task in tasks_with_this_extractor)
        features |= dict.fromkeys(names, passes.features(owner, images[owner.name]))
    return features


def _resized(tasks: Sequence[Task], images: tf.Tensor) -> Tensors:
    """{task: float32 [b, S, S, 3]} without augmentation, computed once per size and crop."""
    shapes = {task.name: (task.size, task.augmentation.crop_size) for task in tasks}
    resized = {
        (size, crop_size): resize(images, size, crop_size=crop_size) for size, crop_size in shapes.values()
    }
    return {task: resized[shape] for task, shape in shapes.items()}


def _augmented_unmixed(tasks: Sequence[Task], images: tf.Tensor, seeds: tf.Tensor) -> Tensors:
    """{task: float32 [b, S, S, 3]}, computed once per augmentation and size."""
    keys = {task.name: (task.augmentation, task.size) for task in tasks}
    augmented = {
        (augmentation, size): augment(images, seeds, augmentation, size)
        for augmentation, size in set(keys.values())
    }
    return {task: augmented[key] for task, key in keys.items()}


def _augmented(tasks: Sequence[Task], rows: dict, batch: dict) -> Tensors:
    """{task: float32 [b, S, S, 3]}, mixed too, computed once per augmentation, size and mixing."""
    augmented: dict[tuple, tf.Tensor] = {}
    for task in tasks:
        key = task.augmentation, task.size, task.mixing
        if key in augmented:
            continue
        augmented[key] = augment(rows["images"], rows["seeds"], task.augmentation, task.size)
        if task.mixing:
            mix = rows["mixes"][task.mixing, task.size]
            images, seeds = (mixing.take(batch[name], mix.partner) for name in ("images", "seeds"))
            partners = augment(images, seeds, task.augmentation, task.size)
            augmented[key] = mixing.mix_images(augmented[key], partners, mix.keep, mix.box)
    return {task.name: augmented[task.augmentation, task.size, task.mixing] for task in tasks}


def _output_spec(task: Task) -> tf.TensorSpec:
    """For one image, what a pass through the micro-batches gathers: features if frozen, logits if trained."""
    if task.trainable:
        return tf.TensorSpec((task.classes,), tf.float32)
    features = task.model.extractor.output
    return tf.TensorSpec(features.shape[1:], features.dtype)


def _gradient_specs(task: Task) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(variable.shape, variable.dtype) for variable in task.trained_variables]
