"""A run: its folder, its models, and fit with all that goes on around the steps.

RUN/train.flags               reproduces the run
RUN/<task>/epoch-01.keras …   one self-contained model per epoch
RUN/<task>/best.keras         the one with the best validation accuracy
RUN/resume/                   see state
RUN/history.csv               one row per epoch
RUN/tensorboard/              scalars and a grid of augmented samples
"""

import dataclasses
import functools
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from deepduel import callbacks, faults, models, optimizers, order, pipeline, run_folder, state, tensorboard
from deepduel.card import RunCard
from deepduel.features import Features
from deepduel.options import RunOptions, TaskOptions
from deepduel.shards import Split
from deepduel.task import Task
from deepduel.training import Duel
from tfrecords_tools.cli import DataError, UsageError


def train(
    options: RunOptions, tasks: list[TaskOptions], *, flags: str, defaults: str = ""
) -> dict[str, float]:
    """Trains, from where the run folder stands, to the last epoch.

    Args:
      flags: the flagfile that reproduces the run; a run folder made with other flags is refused.
      defaults: the flagfile of all defaults, for folders that an earlier version began.

    Returns:
      The last epoch's row of history.csv.

    Raises:
      UsageError, DataError: the options or the data are bad, or the folder holds another run.
    """
    train_split = Split(options.data_dir, options.train_split)
    validation_split = Split(options.data_dir, options.validation_split)
    _check_labels(train_split, tasks)
    _check_labels(validation_split, tasks)
    if options.features is not None:
        _check_frozen(tasks)
    reading = _reading(options.reading, train_split, validation_split, tasks)
    _check_augmentation(tasks, reading.decoding(train_split).size, reading.batch_size)
    workdir = pathlib.Path(options.workdir)
    run_folder.check(workdir, flags, defaults)
    duel = _duel(options, tasks, train_split)
    run_folder.write_flags(workdir, flags)
    run_folder.keep_card(_card(options, train_split, duel, reading), workdir)
    stand, damaged = state.load(workdir / "resume", duel.state_variables())
    for line in damaged:
        print(line)
    stand = stand or state.State()
    if stand.epoch >= options.epochs:
        print(f"{workdir} has all its {options.epochs} epochs already; raise --epochs to go on")
        return stand.history[-1]
    if stand.epoch or stand.step:
        print(f"going on at epoch {stand.epoch + 1} of {options.epochs}, step {stand.step}")
    _say_plan(train_split, validation_split, duel, reading)
    for task in tasks:
        print(task.augmentation_line)
    return _fit(options, duel, train_split, validation_split, reading, stand, flags)


def _fit(options, duel, train_split, validation_split, reading, stand, flags) -> dict[str, float]:
    """From `stand` to the last epoch: what is left of a begun epoch, then the whole ones."""
    workdir, batch_size = pathlib.Path(options.workdir), reading.batch_size
    steps = order.steps_per_epoch(len(train_split), batch_size)
    minutes = options.max_minutes
    keeper = callbacks.Keeper(
        duel,
        workdir,
        stand,
        epochs=options.epochs,
        steps_per_epoch=steps,
        save_seconds=options.save_seconds,
        save_steps=options.save_steps,
        deadline=time.monotonic() + 60 * minutes if minutes else None,
    )
    keeper.listen()
    batches, validation, before = _batches(options, duel, train_split, validation_split, reading, keeper)
    board = tensorboard.Board(duel, workdir / "tensorboard", images=len(train_split), batch_size=batch_size)
    around = [
        callbacks.Clock(duel, images=len(train_split), batch_size=batch_size, before=before),
        callbacks.Console(duel, train_split, validation_split, batch_size=batch_size, epochs=options.epochs),
        board,
        callbacks.NonFinite(duel, train_split, workdir / "non_finite.csv", keeper),
        keeper,
    ]
    if not stand.epoch and not stand.step:
        board.start(flags, pipeline.train_batches(train_split, reading, order.Position(options.seed)))
    duel.go_on_at(stand.step)
    for first, last, start in _stretches(stand, options.epochs):
        position = order.Position(options.seed, first, start)
        duel.fit(
            batches(position),
            validation_data=validation,
            steps_per_epoch=steps - start,
            initial_epoch=first,
            epochs=last,
            shuffle=False,  # the pipeline has its own order
            verbose=0,
            callbacks=around,
        )
    board.close()
    return keeper.history[-1]


def _batches(options, duel, train_split, validation_split, reading, keeper):
    """(function: position -> training batches, validation batches, seconds that features took)."""
    if options.features is None:
        train = functools.partial(pipeline.train_batches, train_split, reading)
        return train, pipeline.eval_batches(validation_split, reading), 0.0
    made = []
    for split, views in ((validation_split, 0), (train_split, options.views)):
        kept = Features(
            options.features, split, reading, duel.tasks,
            micro_batch=duel.micro_batch, seed=options.seed, views=views,
        )  # fmt: skip
        kept.make(keeper.pause)
        made.append(kept)
    validation, train = made
    return train.train_batches, validation.eval_batches(), validation.seconds + train.seconds


def _stretches(stand: state.State, epochs: int) -> list[tuple[int, int, int]]:
    """(first epoch, last epoch + 1, first step): Keras takes one number of steps per fit."""
    if not stand.step:
        return [(stand.epoch, epochs, 0)]
    rest = [(stand.epoch + 1, epochs, 0)] if stand.epoch + 1 < epochs else []
    return [(stand.epoch, stand.epoch + 1, stand.step), *rest]


def _check_labels(split: Split, tasks: list[TaskOptions]) -> None:
    for task in tasks:
        if task.axis not in split.labels:
            raise UsageError(
                f"{split.data_dir} has no label axis {task.axis!r}; "
                f"it has {', '.join(split.labels) or 'none'}"
            )
        labels = split.labels[task.axis]
        if not len(labels):
            raise DataError(f"{split.data_dir}: split {split.name!r} holds no image")
        if (labels < 0).all():
            raise DataError(
                f"{split.data_dir}: no image of split {split.name!r} has a label {task.axis!r}; "
                "name another split or task"
            )
        if len(split.manifest.axes[task.axis]) < 2:
            names = ", ".join(split.manifest.axes[task.axis])
            raise DataError(
                f"{split.data_dir}: {task.axis!r} has a single label ({names}): nothing to tell apart; "
                "leave it out of --tasks"
            )


def _check_frozen(tasks: list[TaskOptions]) -> None:
    for task in tasks:
        if task.architecture.trainable:
            raise UsageError(
                f"--cache=features: {task.axis}'s backbone is trained ({task.architecture.backbone}), so its "
                "features change with every step; freeze it, or use --cache=ram or decoded:FOLDER"
            )
        if task.mixing:
            raise UsageError(
                f"--cache=features: {task.axis} mixes the images of a batch, other ones in every epoch; "
                "leave MixUp and CutMix out, or use --cache=ram or decoded:FOLDER"
            )


def _check_augmentation(tasks: list[TaskOptions], size: tuple[int, int], batch_size: int) -> None:
    for task in tasks:
        try:
            task.augmentation.check_fits(*size)
        except ValueError as error:
            raise UsageError(f"{task.axis}: {error}") from None
        if task.mixing and batch_size == 1:
            raise UsageError(f"{task.axis}: {task.mixing} mixes the images of a batch, and batch_size is 1")


def _reading(reading, train_split, validation_split, tasks) -> pipeline.Reading:
    """Both splits in one size: their own if they share one, else the largest input of the tasks."""
    if reading.fit == "native":
        side = _native_side(tasks)
        return dataclasses.replace(reading, size=(side, side))
    if reading.size is None and (
        train_split.one_size is None or train_split.one_size != validation_split.one_size
    ):
        side = max(task.architecture.image_size for task in tasks)
        return dataclasses.replace(reading, size=(side, side))
    return reading


def _native_side(tasks: list[TaskOptions]) -> int:
    """The input that all tasks share. Raises UsageError when a task would have pixels resampled."""
    side = tasks[0].architecture.image_size
    for task in tasks:
        if task.architecture.image_size != side:
            raise UsageError(
                f"native resolution: {tasks[0].axis} takes {side} pixels and {task.axis} "
                f"{task.architecture.image_size}, so one would be resampled; give both one --image_size"
            )
        if task.augmentation.resamples or task.augmentation.crop_size not in (0, side):
            raise UsageError(
                f"native resolution: the augmentation of {task.axis} rotates, zooms, shears, shifts by parts "
                "of a pixel or crops, which resamples; give --augmentation=forensic, robust or none"
            )
    return side


def _card(options: RunOptions, split: Split, duel: Duel, reading: pipeline.Reading) -> RunCard:
    tasks = {
        task.name: {
            "classes": list(task.model.classes),
            "image_size": task.size,
            "crop_size": task.augmentation.crop_size,
        }
        for task in duel.tasks
    }
    decoding = reading.decoding(split)
    manifest = split.manifest
    return RunCard(
        tasks, decoding.size, decoding.fit, decoding.fast, manifest.name, manifest.source, options.seed
    )


def _duel(options: RunOptions, tasks: list[TaskOptions], split: Split) -> Duel:
    built = []
    for task in tasks:
        architecture = task.architecture
        model = models.build(task.axis, architecture, split.manifest.axes[task.axis], seed=options.seed)
        built.append(Task(task.axis, model, task.augmentation, optimizers.build(task), task.mixing))
    duel = Duel(built, micro_batch=min(options.micro_batch, options.reading.batch_size))
    duel.compile()
    return duel


def _say_plan(train_split, validation_split, duel: Duel, reading: pipeline.Reading) -> None:
    height, width = reading.decoding(train_split).size
    print(
        f"{len(train_split):,} training and {len(validation_split):,} validation images, "
        f"{height}x{width} pixels, batch {reading.batch_size}, micro-batch {duel.micro_batch}"
    )
    for task in duel.tasks:
        trained = sum(int(np.prod(variable.shape)) for variable in task.trained_variables)
        architecture = task.model.architecture
        print(
            f"{task.name}: {architecture.backbone} at {task.size} px, weights {architecture.weights}, "
            f"{trained:,} of {task.model.saved_model.count_params():,} parameters trained, "
            f"labels {', '.join(task.model.classes)}"
        )
        _say_statistics(task, duel.micro_batch, reading.batch_size)


def _say_statistics(task: Task, micro_batch: int, batch_size: int) -> None:
    normalised = any(isinstance(layer, keras.layers.BatchNormalization) for layer in _layers(task))
    if task.trains_statistics and normalised and micro_batch < batch_size:
        print(
            f"{task.name}: trains batch norm, whose statistics are those of micro-batches of {micro_batch} "
            f"images and not of the batch of {batch_size}; --batch_norm=frozen trains without them"
        )


def _layers(task: Task) -> list[keras.layers.Layer]:
    return task.model.extractor._flatten_layers()


def data_error(error: tf.errors.OpError) -> DataError | None:
    """The DataError that a pipeline function raised, dug out of TensorFlow's wrapping of it."""
    return faults.data_error(error)
