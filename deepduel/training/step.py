"""What one device computes of a batch: every task's logits and gradients.

    rows of the batch (see `prepare`)
      │  micro-batch by micro-batch:
      │    augment   uint8 [m, H, W, 3] -> float32 [m, S, S, 3]   once per (augmentation, size, mixing)
      │    extract   -> features [m, …]                            each frozen task, no gradients
      │    or extract, head, loss, gradients, added up             each task whose backbone is trained
      ▼
    all rows: head -> logits, loss, gradients                      each frozen task

With a frozen backbone in inference mode the features of a batch are exactly those of its
micro-batches. With a trained one the gradients of the micro-batches, each divided by the whole batch's
weight, add up to the whole batch's, unless batch-norm statistics are trained: those are of a micro-batch.

Tasks that share an extractor get their features from one pass; their losses are added up, and the gradient
of the sum is the backbone's.

What is random in the heads is drawn for the whole batch beforehand, so that neither the micro-batches
nor the number of devices changes it.
"""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from deepduel.augmentation import mixing
from deepduel.augmentation.transform import augment, resize
from deepduel.networks.micro_batches import in_micro_batches
from deepduel.training import task_losses
from deepduel.training.task import Task


def prepare(tasks: Sequence[Task], batch) -> dict:
    """A nest of tensors [B, …]: the pixels, and all that is decided once for the whole batch.

    "images", "seeds": of the batch (see reading). "mixes": {(mixing, size): Mix}. "targets", "masks": of
    each task by name: its Targets, and what each dropout layer of its head multiplies with.
    """
    mixes = {
        (task.mixing, task.size): mixing.plan(task.mixing, task.size, batch["seeds"], weight=batch["weight"])
        for task in tasks
        if task.mixing
    }
    targets = {
        task.name: task.objective.targets(
            batch["labels"][task.name], batch["weight"], mixes.get((task.mixing, task.size)), task.classes
        )
        for task in tasks
    }
    count = tf.shape(batch["seeds"])[0]
    masks = {task.name: draw_masks(task.model.head, count) for task in tasks}
    return inputs(batch) | {"mixes": mixes, "targets": targets, "masks": masks}


def inputs(batch) -> dict:
    """What the networks take of a batch: "images" and "seeds", or "features" (see features)."""
    return {name: batch[name] for name in ("images", "seeds", "features") if name in batch}


def gradients(tasks: Sequence[Task], rows: dict, whole: dict, *, micro_batch: int):
    """Logits [b, classes] and gradients of some rows of a batch, per task by name.

    Args:
      rows: of `prepare`, those of this device.
      whole: of `prepare`, all rows: the partners in mixing may be any of them. Losses are divided by its
        weights, so that the gradients of all rows add up to those of the batch.

    Returns:
      ({task: logits}, {task: gradients in the order of Task.trained_variables, of the scaled loss}).
    """
    totals = {task.name: tf.reduce_sum(whole["targets"][task.name].weight) for task in tasks}

    def part(rows, filled):
        filled = tf.maximum(filled, 1)  # an empty batch has no statistics
        inputs = _augmented(tasks, rows, whole)
        found, added = {}, {}
        for sharers in sharing(tasks):
            images = inputs[sharers[0].name]
            if not sharers[0].trainable:
                features = tf.stop_gradient(sharers[0].model.frozen(images))
                found |= {task.name: features for task in sharers}
                continue
            # Not the rows that fill up: batch norm would see them.
            images, masks, targets = tf.nest.map_structure(
                lambda row: row[:filled], (images, rows["masks"], rows["targets"])
            )
            logits, gradients = backward(sharers, images, masks, targets, totals)
            added |= gradients
            for name, array in logits.items():
                found[name] = tf.pad(array, [[0, micro_batch - filled], [0, 0]])
        return found, added

    if "features" in rows:
        found, added = dict(rows["features"]), {}
    else:
        found, added = in_micro_batches(
            part,
            rows,
            rows={task.name: feature_spec(task) for task in tasks},
            sums={task.name: _specs(task) for task in tasks if task.trainable},
            micro_batch=micro_batch,
        )
    for task in tasks:
        if not task.trainable:
            logits, gradients = backward([task], found[task.name], rows["masks"], rows["targets"], totals)
            found |= logits
            added |= gradients
    return found, added


def sharing(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks, those together that share an extractor."""
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        groups.setdefault(id(task.model.extractor), []).append(task)
    return list(groups.values())


def predict(tasks: Sequence[Task], rows: dict, *, micro_batch: int) -> dict[str, tf.Tensor]:
    """{task: logits [b, classes]} of rows as they are, without augmentation (see `extract`)."""
    if "features" in rows:
        return {task.name: _logits(task, rows["features"][task.name]) for task in tasks}

    def part(rows, filled):
        features = _features(tasks, _plain(tasks, rows["images"]))
        return {task.name: _logits(task, features[task.name]) for task in tasks}, ()

    specs = {task.name: tf.TensorSpec((task.classes,), tf.float32) for task in tasks}
    return in_micro_batches(part, rows, rows=specs, micro_batch=micro_batch)[0]


def extract(tasks: Sequence[Task], images, seeds, *, augmented: bool, micro_batch: int) -> dict:
    """{task: features [B, …]} of frozen tasks' images.

    Args:
      augmented: as in training, but for mixing; else without augmentation: brought to the model's size, of
        the middle only where training crops.
    """

    def part(rows, filled):
        images, seeds = rows
        done = _augmented_alone(tasks, images, seeds) if augmented else _plain(tasks, images)
        return _features(tasks, done), ()

    specs = {task.name: feature_spec(task) for task in tasks}
    return in_micro_batches(part, (images, seeds), rows=specs, micro_batch=micro_batch)[0]


def _logits(task: Task, features: tf.Tensor) -> tf.Tensor:
    return task.model.head(tf.cast(features, tf.float32), training=False)


def _features(tasks: Sequence[Task], images: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    found = {}
    for sharers in sharing(tasks):
        first = sharers[0]
        extractor = functools.partial(first.model.extractor, training=False)
        features = (extractor if first.trainable else first.model.frozen)(images[first.name])
        found |= {task.name: features for task in sharers}
    return found


def _plain(tasks: Sequence[Task], images: tf.Tensor) -> dict[str, tf.Tensor]:
    shapes = {task.name: (task.size, task.augmentation.crop_size) for task in tasks}
    done = {
        (size, crop_size): resize(images, size, crop_size=crop_size) for size, crop_size in shapes.values()
    }
    return {task: done[shape] for task, shape in shapes.items()}


def _augmented_alone(tasks: Sequence[Task], images: tf.Tensor, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
    keys = {task.name: (task.augmentation, task.size) for task in tasks}
    done = {key: augment(images, seeds, *key) for key in set(keys.values())}
    return {task: done[key] for task, key in keys.items()}


def _augmented(tasks: Sequence[Task], rows: dict, whole: dict) -> dict[str, tf.Tensor]:
    done = {}
    for task in tasks:
        key = task.augmentation, task.size, task.mixing
        if key in done:
            continue
        done[key] = augment(rows["images"], rows["seeds"], task.augmentation, task.size)
        if task.mixing:
            mix = rows["mixes"][task.mixing, task.size]
            theirs = (tf.gather(whole[name], mix.partner) for name in ("images", "seeds"))
            theirs = augment(*theirs, task.augmentation, task.size)
            done[key] = mixing.mix_images(done[key], theirs, mix.keep, mix.box)
    return {task.name: done[task.augmentation, task.size, task.mixing] for task in tasks}


def backward(tasks: Sequence[Task], inputs: tf.Tensor, masks: dict, targets: dict, totals: dict):
    """Logits and gradients of the (scaled) loss of tasks that share an extractor, each {task: …}.

    `inputs` are features where the backbone is frozen, else images. The first task's optimizer scales all
    losses; of the others, which have nothing in float16, the gradients are scaled back.

    The tape follows what depends on the trained variables and nothing else, so that of a backbone whose last
    layers are trained the first ones leave nothing behind.
    """
    first, logits, loss = tasks[0], {}, 0.0
    values = {task.name: [variable.value for variable in task.trained_variables] for task in tasks}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        features = inputs
        if first.trainable:
            features = first.model.extractor(inputs, training=first.trains_statistics)
        for task in tasks:
            name, weight = task.name, targets[task.name].weight
            logits[name] = _head(task.model.head, tf.cast(features, tf.float32), masks[name])
            losses = task_losses.losses(targets[name], logits[name])
            loss += tf.math.divide_no_nan(tf.reduce_sum(losses * weight), totals[name])
        scaled = first.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    for task in tasks[1:]:
        scale = first.optimizer.scale_loss(1.0)
        gradients[task.name] = [gradient / scale for gradient in gradients[task.name]]
    return logits, gradients


def draw_masks(head: keras.Model, count: tf.Tensor) -> list[tf.Tensor]:
    """What each dropout layer does to a batch of ones: its own draw, with its own seed."""
    return [
        layer(tf.ones((count, *layer.input.shape[1:])), training=True)
        for layer in head.layers
        if isinstance(layer, keras.layers.Dropout)
    ]


def _head(head: keras.Model, features: tf.Tensor, masks: list[tf.Tensor]) -> tf.Tensor:
    """The head in training, with the masks of `draw_masks`; its layers are a chain (see models)."""
    left = iter(masks)
    for layer in head.layers[1:]:  # the first is the input
        features = features * next(left) if isinstance(layer, keras.layers.Dropout) else layer(features)
    return features


def feature_spec(task: Task) -> tf.TensorSpec:
    """Of one image, what `gradients` gathers: a frozen task's features, a trained one's logits."""
    if task.trainable:
        return tf.TensorSpec((task.classes,), tf.float32)
    features = task.model.extractor.output
    return tf.TensorSpec(features.shape[1:], features.dtype)


def _specs(task: Task) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(variable.shape, variable.dtype) for variable in task.trained_variables]
