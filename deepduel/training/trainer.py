"""Training several tasks on the same batches with Keras' fit.

batch (see reading.batch)
  │  step         logits and gradients of every task, on each device
  │  replicas     the devices' logits joined, their gradients summed
  │  team         likewise those of several processes
  │  updates      one update of each task's weights, skipped when something is not finite
  ▼  TaskMetrics  loss, accuracy, AUC
logs of Keras
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from deepduel.training import devices, replicas, step, transfer, updates
from deepduel.training.compiled_step import CompiledStep
from deepduel.training.passes import Passes
from deepduel.training.progress import Progress
from deepduel.training.task import Task
from deepduel.training.task_losses import Objective
from deepduel.training.task_metrics import TaskMetrics
from deepduel.training.team import Team, whole


class MultiTaskTrainer(keras.Model):
    """Trains several tasks on the same images.

    Each task has its own optimizer, loss and metrics, and trains to the same weights as it would alone,
    unless tasks share a backbone: then its owner's optimizer updates it, by the gradient of the sum of the
    losses of all tasks that share it.

    Examples:
      trainer = MultiTaskTrainer([task], micro_batch=32)
      trainer.compile()
      trainer.fit(pipeline.train_batches(split, reading, order.Position(seed=0)), steps_per_epoch=100,
                  shuffle=False)

    Attributes:
      tasks: all tasks.
      running: the tasks that still train; see `stop`.
      micro_batch: images per pass through augmentation and backbones.
      passes: how the networks run.
      planned_steps: int variable, the steps of the entire run, for schedules that end with it; or None.
      strategy: that its variables were created under.
      team: the processes that train together.
      progress: what callbacks read of a running fit.
      task_metrics: {task name: its metrics}.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        micro_batch: int,
        strategy: tf.distribute.Strategy | None = None,
        team: Team | None = None,
        planned_steps: tf.Variable | None = None,
        **kwargs: Any,
    ):
        """Args:
        tasks: what is trained; a task that owns an extractor comes before those that share it.
        micro_batch: images per pass through augmentation and backbones, >= 1.
        strategy: the strategy under whose scope the tasks' variables were created; None for one device.
        team: the processes that train together; None for this one alone.
        planned_steps: see the attribute.
        """
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.running = list(self.tasks)
        self.planned_steps = planned_steps
        self.micro_batch = micro_batch
        self.passes = Passes()
        parts = (part for task in tasks for part in (task.model.extractor, task.model.head))
        self.task_models = list({id(part): part for part in parts}.values())  # tracked by Keras
        self.task_metrics = {task.name: TaskMetrics(task) for task in tasks}
        self.progress = Progress()
        self.strategy = strategy or tf.distribute.get_strategy()
        self.team = team or Team()
        self._left_out = keras.metrics.Sum("left_out")
        self._keeps_metrics = False
        self.test_function: Callable | None = None
        self.built = True

    def compile(self) -> None:
        """Creates the optimizers' variables, the averages and the frozen extractors."""
        # XLA slows convolutions on a CPU tenfold; the augmentation compiles itself.
        super().compile(optimizer=None, loss=None, jit_compile=False)
        with self.strategy.scope():
            for task in self.tasks:
                task.optimizer.build(task.trained_variables)
                task.averages  # noqa: B018, a cached property, created under the scope
                if not task.trainable and not task.shares_extractor:
                    task.model.frozen  # noqa: B018, likewise

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All metrics, which Keras resets at the beginning of an epoch and of a validation."""
        quality = [metric for metrics in self.task_metrics.values() for metric in metrics.quality]
        return [*quality, *(metrics.skipped for metrics in self.task_metrics.values()), self._left_out]

    def on_device(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The batches, copied ahead of the steps to the GPU that computes them; unchanged without one.

        Several GPUs take their shares of each batch from the host.
        """
        return transfer.to_device(batches, devices.only_gpu(self.strategy))

    def resume_at(self, step: int) -> None:
        """Lets the next epoch continue one whose first `step` steps are done: its metrics run on."""
        self.progress.steps_done = step
        self._keeps_metrics = step > 0

    def reset_metrics(self) -> None:
        """Called by Keras at the beginning of every epoch; does nothing once after `resume_at`."""
        if self._keeps_metrics:
            self._keeps_metrics = False
            return
        super().reset_metrics()

    def start_again(self) -> None:
        """Lets all tasks train, and lets the steps be traced anew, with the micro-batch of now."""
        self.running = list(self.tasks)
        self.test_function = None

    def stop(self, task: Task) -> None:
        """Leaves the task's weights as they are from now on; it costs nothing any more."""
        self.running.remove(task)

    def state_variables(self) -> list[keras.Variable]:
        """All that training changes: weights, batch norm, dropout seeds, optimizers, metrics, averages.

        The order is that of the arrays in saved states; later versions add variables at the end only.
        """
        metrics = self.task_metrics.values()
        variables = [variable for task in self.tasks for variable in task.variables]
        for metric in (
            *(metric for of_task in metrics for metric in (of_task.loss, of_task.accuracy)),
            *(of_task.skipped for of_task in metrics),
            *(of_task.auc for of_task in metrics),
        ):
            variables += metric.variables
        variables += [variable for task in self.tasks for variable in task.averages.variables]
        return variables + self._left_out.variables

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """A block within which tasks that average their weights have the averages as their weights."""
        with contextlib.ExitStack() as stack:
            for task in self.running:
                stack.enter_context(task.averages.in_place())
            yield

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, with averaged weights; fills `progress.validation`."""
        self.progress.validation = []
        with self.averaged():
            return super().evaluate(*args, **kwargs)

    def train_step(self, batch: dict) -> dict[str, tf.Tensor]:
        """One update of every running task; returns the logs."""
        inputs, prepared = step.inputs(batch), step.prepare(self.running, batch)
        rows = inputs | self.team.part(prepared)
        copies = {task.name: updates.statistics(task) for task in self.running}
        with self.strategy.scope():
            logits, gradients = self.team.joined(
                *replicas.run_on_all(
                    self.strategy, lambda rows: self._gradients(rows, inputs | prepared), rows
                ),
                size=tf.shape(whole(batch)["weight"])[0],
            )
            for task in self.running:
                targets, name = prepared["targets"][task.name], task.name
                finite = updates.all_finite(targets, logits[name], gradients[name])
                overflowed = updates.scale_overflowed(task, targets, logits[name], finite)
                updates.apply_if_finite(task, gradients[name], finite, self.strategy, self.passes)
                updates.restore_unless_finite(copies[name], finite)
                self.task_metrics[name].update_skipped(finite | overflowed)
                self.task_metrics[name].update(targets, logits[name], finite)
        self._count_left_out(batch)
        return self._logs(skipped=True)

    def test_step(self, batch: dict) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """The logs, and each running task's logits float32 [B, classes]."""
        rows = whole(batch)
        with self.strategy.scope():
            logits, _ = self.team.joined(
                *replicas.run_on_all(
                    self.strategy, lambda rows: (self._predict(rows), {}), step.inputs(batch)
                ),
                size=tf.shape(rows["weight"])[0],
            )
        for task in self.running:
            targets = Objective().targets(rows["labels"][task.name], rows["weight"], None, task.classes)
            self.task_metrics[task.name].update(targets, logits[task.name])
        self._count_left_out(batch)
        return self._logs(skipped=False), logits

    def make_train_function(self, force: bool = False) -> Callable:
        """Called by Keras' fit."""
        compiled = CompiledStep(self.train_step, self._running_names, self.progress, self.team)

        def function(iterator: Iterator) -> dict[str, tf.Tensor]:
            logs = compiled(iterator)
            self.progress.steps_done += 1
            return logs

        self.train_function = function
        return function

    def make_test_function(self, force: bool = False) -> Callable:
        """Called by Keras before each validation; tracing takes seconds, so the function is kept."""
        if self.test_function and not force:
            return self.test_function
        compiled = CompiledStep(self.test_step, self._running_names, self.progress, self.team)

        def function(iterator: Iterator) -> dict[str, tf.Tensor]:
            logs, logits = compiled(iterator)
            logits = {name: array.numpy() for name, array in logits.items()}
            self.progress.validation.append((self.progress.records, logits))
            return logs

        self.test_function = function
        return function

    def _gradients(self, rows: dict, prepared: dict) -> tuple[dict, dict]:
        """({task: logits [b, classes]}, {task: gradients}) of some rows of a batch."""
        if "features" in rows:
            return step.head_gradients(self.running, rows["features"], rows, prepared, passes=self.passes)
        return step.accumulated_gradients(
            self.running, rows, prepared, micro_batch=self.micro_batch, passes=self.passes
        )

    def _predict(self, rows: dict) -> dict[str, tf.Tensor]:
        return step.predict(self.running, rows, micro_batch=self.micro_batch, passes=self.passes)

    def _running_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.running)

    def _count_left_out(self, batch: dict) -> None:
        """Counts records without weight that are no padding: they could not be decoded."""
        rows = whole(batch)
        self._left_out.update_state(tf.cast((rows["weight"] == 0) & (rows["records"] >= 0), tf.float32))

    def _logs(self, *, skipped: bool) -> dict[str, tf.Tensor]:
        """{metric: its value} of the running tasks, with or without the counts of skipped steps."""
        metrics: list[keras.metrics.Metric] = []
        for task in self.running:
            of_task = self.task_metrics[task.name]
            metrics += [*of_task.quality, of_task.skipped] if skipped else of_task.quality
        return {metric.name: metric.result() for metric in (*metrics, self._left_out)}
