"""Options -> the networks, optimizers and losses of a run."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping

import keras
import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.networks import keras_graph, task_model, weight_transfer
from deepduel.reading import order
from deepduel.runs import initial_weights
from deepduel.runs.initial_weights import InitialWeights
from deepduel.runs.options import RunOptions, TaskOptions
from deepduel.training import devices, optimizers, task_losses
from deepduel.training.schedules import Plateau
from deepduel.training.task import Task
from deepduel.training.task_losses import Objective
from deepduel.training.team import Team
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.errors import UsageError

_PATIENCE = 5  # epochs, of a plateau


def trainer(
    options: RunOptions,
    tasks: list[TaskOptions],
    split: Split,
    initial: Mapping[str, InitialWeights] | None = None,
    team: Team | None = None,
) -> MultiTaskTrainer:
    """Everything that is trained, compiled.

    Args:
      split: the training split, for its labels and its size.
      initial: what the networks of each task start from; None for what the options name.
      team: the processes that train together; None for this one alone.

    Raises:
      UsageError: several devices or processes are asked for, and a task trains batch-norm statistics.
    """
    if initial is None:
        workdir = pathlib.Path(options.workdir)
        initial = {task.axis: initial_weights.find(task, workdir) for task in tasks}
    steps = order.steps_per_epoch(len(split), options.reading.batch_size)
    strategy = devices.strategy(options.devices) if options.cluster is None else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        planned = tf.Variable(
            steps * (options.length.epochs or 0), trainable=False, dtype=tf.int64, name="planned_steps"
        )  # int64: TensorFlow keeps an int32 variable out of a GPU's memory, where XLA does not find it
        built: list[Task] = []
        for task in tasks:
            owner = built[0] if options.shared_backbone and built else None
            built.append(_task(options, task, split, steps, planned, owner, initial[task.axis]))
    need_one_device = [task.name for task in built if task.trains_statistics and normalises(task)]
    if strategy and need_one_device:
        rule = f"{', '.join(need_one_device)}: batch-norm statistics can be trained on one device only"
        if options.devices != "auto":
            raise UsageError(f"{rule}; give --devices=1 or --batch_norm=frozen")
        print(f"{rule}, so one is used; --batch_norm=frozen trains on all")
        return trainer(dataclasses.replace(options, devices="1"), tasks, split, initial)
    if options.cluster:
        _check_for_cluster(built)
    micro_batch = min(options.micro_batch or 1, options.reading.batch_size)
    trained = MultiTaskTrainer(
        built, micro_batch=micro_batch, strategy=strategy, team=team, planned_steps=planned
    )
    trained.compile()
    return trained


def _check_for_cluster(tasks: list[Task]) -> None:
    """Raises UsageError where a backbone changes, in its forward pass, what a worker would see alone."""
    for task in tasks:
        if not task.trains_statistics:
            continue
        if normalises(task) or any(
            isinstance(layer, keras.layers.Dropout) for layer in keras_graph.flat_layers(task.model.extractor)
        ):
            raise UsageError(
                f"{task.name}: a backbone's batch-norm statistics and dropout cannot be trained on a "
                "cluster, where each worker sees a part of the batch; give --batch_norm=frozen"
            )


def normalises(task: Task) -> bool:
    """Whether the task's backbone has batch norm."""
    layers = keras_graph.flat_layers(task.model.extractor)
    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)


def _task(
    options: RunOptions,
    task: TaskOptions,
    split: Split,
    steps: int,
    planned_steps: tf.Variable,
    owner: Task | None,
    initial: InitialWeights,
) -> Task:
    """The task, with the owner's extractor where there is one."""
    classes = split.manifest.axes[task.axis]
    weights = task_losses.class_weights(task.class_weights, split.labels[task.axis], tuple(classes))
    architecture = task.architecture
    name, epochs = task.optimizer.schedule_parts
    plateau = Plateau(epochs or _PATIENCE, tf.Variable(1.0, trainable=False)) if name == "plateau" else None
    optimizer = optimizers.build(
        task.optimizer,
        steps_per_epoch=steps,
        epochs=options.length.epochs,
        planned_steps=planned_steps,
        scales_loss=architecture.trainable and architecture.precision == "mixed_float16" and not owner,
        precision=architecture.precision,
        plateau=plateau,
    )
    model = task_model.build(
        task.axis,
        architecture,
        classes,
        seed=options.seed,
        extractor=owner.model.extractor if owner else None,
        weights=initial.file,
    )
    if initial.model is not None:
        summary = weight_transfer.transfer(initial.model, model, head_only=owner is not None)
        if not initial.is_kept:
            print(f"{task.axis}: starts from {summary}")
    return Task(
        task.axis,
        model,
        task.augmentation,
        optimizer,
        mixing=task.mixing,
        objective=Objective(task.label_smoothing, weights),
        ema=task.ema,
        clip_norm=task.optimizer.clip_norm,
        monitor=task.monitor,
        patience=task.early_stopping,
        shares_extractor=owner is not None,
        plateau=plateau,
    )
