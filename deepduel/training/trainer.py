"""Training several tasks on the same batches, with Keras' fit: `step` computes, this applies and measures."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from deepduel.training import step
from deepduel.training.running_auc import RunningAUC
from deepduel.training.task import Task
from deepduel.training.task_losses import Objective, Targets, losses


class Duel(keras.Model):
    """Several tasks on the same images. Use: compile(), then fit() on pipeline batches.

    Each task has its own optimizer, loss and metrics, and trains to the same weights as it would alone,
    unless tasks share a backbone: the first one's optimizer changes it, by the gradient of all their losses.

    Attributes:
      tasks: all of them.
      running: those that still train; see `stop`.
      input_seconds: spent waiting for batches.
      steps_done: of the running epoch.
      last_records: record numbers of the last batch.
      validated: (records [B], {task: logits [B, classes]}) of each batch of the last validation.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        micro_batch: int,
        strategy: tf.distribute.Strategy | None = None,
        planned_steps: tf.Variable | None = None,
        **kwargs,
    ):
        """Args:
        micro_batch: images per pass through augmentation and backbones, >= 1.
        strategy: of several devices, under whose scope the tasks' variables were made.
        planned_steps: of the whole run, for schedules that end with it.
        """
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.running = list(self.tasks)
        self.planned_steps = planned_steps
        self.micro_batch = micro_batch
        parts = (part for task in tasks for part in (task.model.extractor, task.model.head))
        self.task_models = list({id(part): part for part in parts}.values())
        self._strategy = strategy or tf.distribute.get_strategy()
        self._measures = {
            task.name: (
                keras.metrics.Mean(f"{task.name}_loss"),
                keras.metrics.SparseCategoricalAccuracy(f"{task.name}_accuracy"),
                RunningAUC(task.classes, f"{task.name}_auc"),
            )
            for task in tasks
        }
        self._skipped = {task.name: keras.metrics.Sum(f"{task.name}_skipped_steps") for task in tasks}
        self._left_out = keras.metrics.Sum("left_out")
        self.input_seconds = 0.0
        self.steps_done = 0
        self.last_records = np.empty(0, np.int64)
        self.validated: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self._going_on = False
        self.built = True

    def compile(self):
        # XLA slows convolutions on a CPU tenfold; the augmentation compiles itself.
        super().compile(optimizer=None, loss=None, jit_compile=False)
        with self._strategy.scope():
            for task in self.tasks:
                task.optimizer.build(task.trained_variables)
                task.averages  # noqa: B018, made here, under the scope
                if not task.trainable and not task.borrows:
                    task.model.frozen  # noqa: B018, likewise

    @property
    def metrics(self):
        measures = [metric for three in self._measures.values() for metric in three]
        return [*measures, *self._skipped.values(), self._left_out]

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

    def stop(self, task: Task) -> None:
        """The task's weights stay as they are, and it costs nothing any more."""
        self.running.remove(task)

    def state_variables(self) -> list:
        """All that changes in training: weights, batch norm, dropout seeds, optimizers, metrics, averages.

        In an order to which later versions add at the end only: see state.
        """
        early = [metric for measures in self._measures.values() for metric in measures[:2]]
        late = [measures[2] for measures in self._measures.values()]
        variables = [variable for task in self.tasks for variable in task.variables]
        for metric in (*early, *self._skipped.values(), *late):
            variables += metric.variables
        variables += [variable for task in self.tasks for variable in task.averages.variables]
        return variables + self._left_out.variables

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it tasks that average their weights have those averages as their weights."""
        with contextlib.ExitStack() as stack:
            for task in self.running:
                stack.enter_context(task.averages.in_place())
            yield

    def evaluate(self, *args, **kwargs):
        self.validated = []
        with self.averaged():
            return super().evaluate(*args, **kwargs)

    def train_step(self, batch):
        whole = step.prepare(self.running, batch)
        kept = {task.name: _statistics(task) for task in self.running}
        with self._strategy.scope():
            logits, gradients = self._on_all_devices(
                lambda rows: step.gradients(self.running, rows, whole, micro_batch=self.micro_batch), whole
            )
            for task in self.running:
                self._update(task, gradients[task.name], kept[task.name], whole, logits[task.name])
        self._count_left_out(batch)
        return self._results()

    def test_step(self, batch):
        """The logs, and each task's logits."""
        with self._strategy.scope():
            rows = step.inputs(batch)
            logits, _ = self._on_all_devices(
                lambda rows: (step.predict(self.running, rows, micro_batch=self.micro_batch), {}), rows
            )
        for task in self.running:
            targets = Objective().targets(batch["labels"][task.name], batch["weight"], None, task.classes)
            self._measure(task, targets, logits[task.name])
        self._count_left_out(batch)
        skipped = {metric.name for metric in self._skipped.values()}
        results = {name: value for name, value in self._results().items() if name not in skipped}
        return results, logits

    def make_train_function(self, force=False):
        step = self._timed(self.train_step)

        def function(iterator):
            results = step(iterator)
            self.steps_done += 1
            return results

        self.train_function = function
        return function

    def make_test_function(self, force=False):
        if self.test_function and not force:  # Keras asks before each validation; tracing takes seconds
            return self.test_function
        step = self._timed(self.test_step)

        def function(iterator):
            results, logits = step(iterator)
            logits = {name: array.numpy() for name, array in logits.items()}
            self.validated.append((self.last_records, logits))
            return results

        self.test_function = function
        return function

    def _timed(self, step: Callable) -> Callable:
        """Keras' train_function, with the wait for the batch outside the graph, where a clock sees it."""
        compiled: dict[tuple, Callable] = {}

        def function(iterator):
            started = time.perf_counter()
            batch = next(iterator)
            self.input_seconds += time.perf_counter() - started
            self.last_records = batch["records"].numpy()
            spec = iterator.element_spec
            key = *(task.name for task in self.running), *tf.nest.flatten(spec)
            if key not in compiled:  # one trace for whole and partial batches
                compiled[key] = tf.function(step, input_signature=[spec], autograph=False)
            return compiled[key](batch)

        return function

    def _on_all_devices(self, function: Callable, whole):
        """`function(rows) -> (results [b, …], sums)` of each device's rows, joined and added up."""
        count = self._strategy.num_replicas_in_sync
        if count == 1:
            return function(whole)

        def on_one():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            size = tf.shape(tf.nest.flatten(whole)[0])[0]
            start, end = size * index // count, size * (index + 1) // count
            with tf.device("CPU:0"):  # not the whole batch to every device
                rows = tf.nest.map_structure(lambda row: row[start:end], whole)
            return function(rows)

        found, sums = self._strategy.run(on_one)
        joined = tf.nest.map_structure(
            lambda parts: tf.concat(self._strategy.experimental_local_results(parts), axis=0), found
        )
        return joined, tf.nest.map_structure(
            lambda parts: self._strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None), sums
        )

    def _update(self, task: Task, gradients: list, kept: list, whole: dict, logits: tf.Tensor) -> None:
        """One update of one task; skipped whole, and counted, when its loss or a gradient is not finite."""
        targets = whole["targets"][task.name]
        labelled = tf.boolean_mask(losses(targets, logits), targets.weight > 0)
        finite = tf.reduce_all(tf.math.is_finite(labelled))
        finite &= tf.math.is_finite(tf.linalg.global_norm(gradients))
        self._apply(task, gradients, finite)
        for variable, value in kept:  # batch norm has seen the batch too
            variable.assign(tf.where(finite, variable, value))
        self._skipped[task.name].update_state(tf.where(finite, 0.0, 1.0))
        self._measure(task, targets, logits, finite)

    def _apply(self, task: Task, gradients: list, finite: tf.Tensor) -> None:
        """Updates the weights if all is finite. With a scaled loss, Keras' LossScaleOptimizer done by hand.

        Keras' optimizers add up the gradients of all devices, after clipping each: here they are added up and
        clipped already, so each device hands in its share. `LossScaleOptimizer.apply` could not be called
        here: its own tf.cond must stand outside the replicas, as this one does.
        """
        optimizer, scaling = task.optimizer, isinstance(task.optimizer, keras.optimizers.LossScaleOptimizer)

        def apply():
            inner = optimizer.inner_optimizer if scaling else optimizer
            scale = optimizer.dynamic_scale.value if scaling else 1.0
            unscaled = [gradient / scale for gradient in gradients] if scaling else gradients
            if task.clip_norm:
                unscaled, _ = tf.clip_by_global_norm(unscaled, task.clip_norm)
            devices = self._strategy.num_replicas_in_sync

            def on_one():
                shares = [gradient / devices for gradient in unscaled] if devices > 1 else unscaled
                inner.apply(shares, task.trained_variables)

            self._strategy.run(on_one)
            task.averages.update(inner.iterations.value)
            if scaling:
                count = optimizer.step_counter.value + 1
                grown = count >= optimizer.dynamic_growth_steps
                optimizer.step_counter.assign(tf.where(grown, tf.zeros_like(count), count))
                optimizer.dynamic_scale.assign(tf.where(grown, scale * 2.0, scale))

        def skip():
            if scaling:
                optimizer.step_counter.assign(0)
                optimizer.dynamic_scale.assign(optimizer.dynamic_scale.value * 0.5)

        tf.cond(finite, apply, skip)

    def _measure(self, task: Task, targets: Targets, logits: tf.Tensor, finite=True) -> None:
        mean, accuracy, auc = self._measures[task.name]
        loss = losses(targets, logits)
        known = tf.cast(finite & tf.math.is_finite(loss), tf.float32)
        mean.update_state(tf.where(known > 0, loss, 0.0), targets.weight * known)
        accuracy.update_state(targets.label, logits, targets.counts * known)
        auc.update_state(targets.label, logits, targets.counts * known)

    def _count_left_out(self, batch) -> None:
        """Records without weight that are no padding: they do not decode."""
        self._left_out.update_state(tf.cast((batch["weight"] == 0) & (batch["records"] >= 0), tf.float32))

    def _results(self) -> dict:
        names = [task.name for task in self.running]
        metrics = [metric for name in names for metric in (*self._measures[name], self._skipped[name])]
        return {metric.name: metric.result() for metric in (*metrics, self._left_out)}


def _statistics(task: Task) -> list:
    """What the backbone changes by itself in training, each with its present value."""
    if not task.trains_statistics or task.borrows:
        return []
    variables = task.model.extractor.non_trainable_variables
    return [(variable, tf.identity(variable.value)) for variable in variables]
