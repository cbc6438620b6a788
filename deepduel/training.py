"""The training step: one uint8 batch trains every task's model.

    batch (see pipeline)
      │  micro-batch by micro-batch:
      │    augment   uint8 [m, H, W, 3] -> float32 [m, S, S, 3]   once per (augmentation, size, mixing)
      │    extract   -> features [m, …]                            each frozen task, no gradients
      ▼
    the whole batch: head -> logits, loss, gradients, one update   each task

With a frozen backbone in inference mode the features of a batch are exactly the features of
its micro-batches, so the batch size costs the memory of the heads only. A backbone that is
trained sees the whole batch at once.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from deepduel import mixing
from deepduel.augment import augment
from deepduel.augmentation import Augmentation
from deepduel.mixing import Mix, Mixing
from deepduel.models import TaskModel


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained for one label axis.

    Attributes:
      name: the label axis.
      model: its networks.
      augmentation: of its training images.
      optimizer: its own; one that scales the loss where the backbone is trained in float16.
      mixing: of its training images with one another.
    """

    name: str
    model: TaskModel
    augmentation: Augmentation
    optimizer: keras.optimizers.Optimizer
    mixing: Mixing = Mixing()

    @property
    def trainable(self) -> bool:
        """Whether the backbone is trained too."""
        return self.model.architecture.trainable

    @property
    def size(self) -> int:
        return self.model.architecture.image_size


class Duel(keras.Model):
    """Several tasks on the same images. Use: compile(), then fit() on pipeline batches.

    Each task has its own optimizer, loss and metrics and shares no variable with the others,
    so it trains to the same weights as it would alone.
    """

    def __init__(self, tasks: Sequence[Task], *, micro_batch: int, **kwargs):
        """Args:
        micro_batch: images per pass through augmentation and frozen backbones, >= 1.
        """
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.micro_batch = micro_batch
        self.task_models = [layer for task in tasks for layer in (task.model.extractor, task.model.head)]
        self._task_metrics = {
            task.name: (
                keras.metrics.Mean(f"{task.name}_loss"),
                keras.metrics.SparseCategoricalAccuracy(f"{task.name}_accuracy"),
            )
            for task in tasks
        }
        self._skipped = {task.name: keras.metrics.Sum(f"{task.name}_skipped_steps") for task in tasks}
        self.input_seconds = 0.0  # spent waiting for batches
        self.steps_done = 0  # of the running epoch
        self.last_records = np.empty(0, np.int64)  # record numbers of the last batch
        self._going_on = False
        self.built = True

    def compile(self):
        # XLA slows convolutions on a CPU tenfold; the augmentation compiles itself.
        super().compile(optimizer=None, loss=None, jit_compile=False)
        for task in self.tasks:
            task.optimizer.build(self.trained_variables(task))

    @property
    def metrics(self):
        return [*(metric for pair in self._task_metrics.values() for metric in pair), *self._skipped.values()]

    def go_on_at(self, step: int) -> None:
        """The next epoch is one that was begun: its first `step` steps are done, its metrics stand."""
        self.steps_done = step
        self._going_on = step > 0

    def reset_metrics(self):
        if self._going_on:  # Keras resets at the start of every epoch
            self._going_on = False
            return
        super().reset_metrics()

    def skipped_steps(self, task: Task) -> int:
        """Steps of the running epoch whose loss or gradient was not finite."""
        return int(self._skipped[task.name].result())

    def trained_variables(self, task: Task) -> list:
        """The variables that the task's gradients go to."""
        variables = list(task.model.head.trainable_variables)
        return list(task.model.extractor.trainable_variables) + variables if task.trainable else variables

    def state_variables(self) -> list:
        """All that changes in training: weights, batch norm, dropout seeds, optimizers, metrics."""
        variables = []
        for task in self.tasks:
            if task.trainable:
                variables += task.model.extractor.variables
            variables += task.model.head.variables + task.optimizer.variables
        return variables + [variable for metric in self.metrics for variable in metric.variables]

    def train_step(self, batch):
        batch = batch | {"mixes": self._mixes(batch)}
        inputs = self._inputs(batch, training=True)
        for task in self.tasks:
            self._update(task, inputs[task.name], batch)
        return self._results()

    def test_step(self, batch):
        inputs = self._inputs(batch, training=False)
        for task in self.tasks:
            features = inputs[task.name]
            if task.trainable:
                features = task.model.extractor(features, training=False)
            logits = task.model.head(tf.cast(features, tf.float32), training=False)
            self._measure(task, batch, logits)
        skipped = {metric.name for metric in self._skipped.values()}
        return {name: value for name, value in self._results().items() if name not in skipped}

    def make_train_function(self, force=False):
        step = self._timed(self.train_step)

        def function(iterator):
            results = step(iterator)
            self.steps_done += 1
            return results

        self.train_function = function
        return function

    def make_test_function(self, force=False):
        self.test_function = self._timed(self.test_step)
        return self.test_function

    def _timed(self, step: Callable) -> Callable:
        """Keras' train_function, with the wait for the batch outside the graph, where a clock sees it."""
        compiled = None

        def function(iterator):
            nonlocal compiled
            started = time.perf_counter()
            batch = next(iterator)
            self.input_seconds += time.perf_counter() - started
            self.last_records = batch["records"].numpy()
            if compiled is None:  # one trace for whole and partial batches
                compiled = tf.function(step, input_signature=[iterator.element_spec], autograph=False)
            return compiled(batch)

        return function

    def _update(self, task: Task, inputs: tf.Tensor, batch) -> None:
        """One step of one task; skipped and counted when its loss or a gradient is not finite."""
        variables = self.trained_variables(task)
        statistics = [variable.value for variable in task.model.extractor.non_trainable_variables]
        before = [tf.identity(value) for value in statistics] if task.trainable else []
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            features = task.model.extractor(inputs, training=True) if task.trainable else inputs
            logits = task.model.head(tf.cast(features, tf.float32), training=True)
            loss = self._loss(task, batch, logits)
            scaled = task.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        finite = tf.math.is_finite(loss) & tf.math.is_finite(tf.linalg.global_norm(gradients))
        self._apply(task, gradients, variables, finite)
        for value, kept in zip(statistics, before, strict=False):  # batch norm has seen the batch too
            value.assign(tf.where(finite, value, kept))
        self._skipped[task.name].update_state(tf.where(finite, 0.0, 1.0))
        self._measure(task, batch, logits)

    def _apply(self, task: Task, gradients: list, variables: list, finite: tf.Tensor) -> None:
        def apply():
            task.optimizer.apply_gradients(zip(gradients, variables, strict=True))

        if isinstance(task.optimizer, keras.optimizers.LossScaleOptimizer):
            apply()  # skips by itself, and lowers its scale
        else:
            tf.cond(finite, apply, lambda: None)

    def _loss(self, task: Task, batch, logits: tf.Tensor) -> tf.Tensor:
        """Mean cross-entropy over the images that have a label on this axis."""
        losses, weight, _ = self._cross_entropy(task, batch, logits)
        return tf.math.divide_no_nan(tf.reduce_sum(losses * weight), tf.reduce_sum(weight))

    def _measure(self, task: Task, batch, logits: tf.Tensor) -> None:
        losses, weight, labels = self._cross_entropy(task, batch, logits)
        mean, accuracy = self._task_metrics[task.name]
        finite = tf.math.is_finite(losses)
        mean.update_state(tf.where(finite, losses, 0.0), weight * tf.cast(finite, tf.float32))
        accuracy.update_state(labels, logits, weight)

    def _cross_entropy(self, task: Task, batch, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Cross-entropy and weight [B], and for the accuracy a label: of a mix that of the larger share."""
        parts = mixing.shares(batch["labels"][task.name], batch["weight"], self._mix(task, batch))
        total = 0.0
        for labels, weight in parts:
            total += tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits) * weight
        labels, weight = mixing.larger_share(parts)
        return tf.math.divide_no_nan(total, weight), weight, labels

    def _mixes(self, batch) -> dict[tuple[Mixing, int], Mix]:
        """How the batch's images are mixed, for each way of mixing and size among the tasks."""
        wanted = {(task.mixing, task.size) for task in self.tasks if task.mixing}
        return {key: mixing.plan(*key, batch["seeds"], weight=batch["weight"]) for key in wanted}

    def _mix(self, task: Task, batch) -> Mix | None:
        return batch.get("mixes", {}).get((task.mixing, task.size))

    def _results(self) -> dict:
        return {metric.name: metric.result() for metric in self.metrics}

    def _inputs(self, batch, *, training: bool) -> dict[str, tf.Tensor]:
        """Per task what its trained part takes: features, or the augmented images [B, …]."""

        mixes = batch["mixes"] if training else {}

        def extract(images, seeds, mixes):
            augmented, inputs = {}, {}
            for task in self.tasks:
                augmentation = task.augmentation if training else Augmentation()
                mix = mixes.get((task.mixing, task.size))
                key = augmentation, task.size, task.mixing
                if key not in augmented:
                    augmented[key] = augment(images, seeds, augmentation, task.size)
                    if mix is not None:
                        theirs = (tf.gather(batch[part], mix.partner) for part in ("images", "seeds"))
                        theirs = augment(*theirs, augmentation, task.size)
                        augmented[key] = mixing.mix_images(augmented[key], theirs, mix.keep, mix.box)
                inputs[task.name] = augmented[key]
                if not task.trainable:
                    features = task.model.extractor(augmented[key], training=False)
                    inputs[task.name] = tf.stop_gradient(features)
            return inputs

        signature = {task.name: self._extracted_spec(task) for task in self.tasks}
        return in_micro_batches(
            extract, batch["images"], batch["seeds"], mixes, signature=signature, micro_batch=self.micro_batch
        )

    def _extracted_spec(self, task: Task) -> tf.TensorSpec:
        if task.trainable:
            return tf.TensorSpec((task.size, task.size, 3), tf.float32)
        features = task.model.extractor.output
        return tf.TensorSpec(features.shape[1:], features.dtype)


def in_micro_batches(function: Callable, *inputs, signature, micro_batch: int):
    """`function` over [micro_batch, …] slices, one after the other, its results joined to [B, …].

    Every slice has exactly `micro_batch` images (the last is filled up with black ones, whose
    results are cut off again), so that whatever `function` compiles is compiled once.

    Args:
      function: (images [m, H, W, 3], seeds [m, 2], …) -> a nest of tensors [m, …].
      inputs: its arguments, each a nest of tensors [B, …].
      signature: the same nest of tf.TensorSpec as its result, for one image.
    """
    count = tf.shape(tf.nest.flatten(inputs)[0])[0]

    def one(number):
        start = number * micro_batch

        def part(whole):
            some = whole[start : start + micro_batch]
            missing = micro_batch - tf.shape(some)[0]
            some = tf.pad(some, [[0, missing], *[[0, 0]] * (len(whole.shape) - 1)])
            return tf.ensure_shape(some, (micro_batch, *whole.shape[1:]))

        return function(*tf.nest.map_structure(part, inputs))

    specs = tf.nest.map_structure(
        lambda spec: tf.TensorSpec((micro_batch, *spec.shape), spec.dtype), signature
    )
    steps = (count + micro_batch - 1) // micro_batch
    stacked = tf.map_fn(one, tf.range(steps), fn_output_signature=specs, parallel_iterations=1)
    return tf.nest.map_structure(lambda part: tf.reshape(part, (-1, *part.shape[2:]))[:count], stacked)
