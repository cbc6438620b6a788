"""A run: its folder, its models, its plan; a `session` of it is fit with what goes on around the steps.

RUN/train.flags               reproduces the run
RUN/<task>/epoch-01.keras …   one self-contained model per epoch
RUN/<task>/best.keras         the one with the best validation accuracy
RUN/resume/                   see state
RUN/history.csv               one row per epoch
RUN/tensorboard/              scalars and a grid of augmented samples
"""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.split import Split
from deepduel.networks import input_filters
from deepduel.networks.run_card import RunCard
from deepduel.reading import pipeline
from deepduel.runs import build, dry_run, fit_loop, micro_batch_search, run_folder, training_state
from deepduel.runs.options import RunOptions, TaskOptions
from deepduel.training.task import Task
from deepduel.training.trainer import Duel
from tfrecords_tools.errors import DataError, UsageError


def train(
    options: RunOptions, tasks: list[TaskOptions], *, flags: str, defaults: str = ""
) -> dict[str, float]:
    """Trains, from where the run folder stands, to the last epoch.

    Args:
      flags: the flagfile that reproduces the run; a run folder made with other flags is refused.
      defaults: the flagfile of all defaults, for folders that an earlier version began.

    Returns:
      The last value of each column of history.csv; of a dry run nothing.

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
    duel = build.duel(options, tasks, train_split)
    if options.dry_run:
        return _dry_run(duel, train_split, validation_split, reading, options)
    run_folder.write_flags(workdir, flags)
    run_folder.keep_card(_card(options, train_split, duel, reading), workdir)
    stand, damaged = training_state.load(workdir / "resume", duel.state_variables())
    for task in duel.tasks:
        input_filters.reset_kernels(task.model.extractor)
    for line in damaged:
        print(line)
    stand = stand or training_state.State()
    if len(stand.stopped) == len(tasks):
        print(f"{workdir}: all tasks have stopped early, after {stand.epoch} epochs")
        return fit_loop.latest(stand.history)
    planned = options.length.planned([row["seconds"] for row in stand.history])
    if planned and stand.epoch >= planned:
        print(f"{workdir} has all its {planned} epochs already; raise --epochs to go on")
        return fit_loop.latest(stand.history)
    if options.micro_batch is None:
        duel.micro_batch = micro_batch_search.chosen(duel, workdir, batch_size=reading.batch_size)
    if stand.epoch or stand.step:
        of = f" of {planned}" if planned else ""
        print(f"going on at epoch {stand.epoch + 1}{of}, step {stand.step}")
    _say_plan(train_split, validation_split, duel, reading)
    for task in tasks:
        print(task.augmentation_line)
    return fit_loop.fit(options, duel, train_split, validation_split, reading, stand, flags=flags)


def _dry_run(duel, train_split, validation_split, reading, options) -> dict[str, float]:
    reading = dataclasses.replace(reading, cache="none")
    if options.micro_batch is None:
        rates = micro_batch_search.measure(duel, batch_size=reading.batch_size)
        duel.micro_batch = micro_batch_search.fastest(rates)
    _say_plan(train_split, validation_split, duel, reading)
    dry_run.report(duel, train_split, validation_split, reading, seed=options.seed)
    return {}


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


def _reading(reading, train_split, validation_split, tasks) -> pipeline.ReadOptions:
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


def _card(options: RunOptions, split: Split, duel: Duel, reading: pipeline.ReadOptions) -> RunCard:
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


def _say_plan(train_split, validation_split, duel: Duel, reading: pipeline.ReadOptions) -> None:
    height, width = reading.decoding(train_split).size
    print(
        f"{len(train_split):,} training and {len(validation_split):,} validation images, "
        f"{height}x{width} pixels, batch {reading.batch_size}, micro-batch {duel.micro_batch}"
    )
    for task in duel.tasks:
        trained = sum(int(np.prod(variable.shape)) for variable in task.trained_variables)
        architecture = task.model.architecture
        print(
            f"{task.name}: {architecture.backbone} at {task.size} px{', shared' * task.borrows}, "
            f"weights {architecture.weights}, "
            f"{trained:,} of {task.model.saved_model.count_params():,} parameters trained, "
            f"labels {', '.join(task.model.classes)}"
        )
        _say_statistics(task, duel.micro_batch, reading.batch_size)


def _say_statistics(task: Task, micro_batch: int, batch_size: int) -> None:
    if task.trains_statistics and build.normalises(task) and micro_batch < batch_size:
        print(
            f"{task.name}: trains batch norm, whose statistics are those of micro-batches of {micro_batch} "
            f"images and not of the batch of {batch_size}; --batch_norm=frozen trains without them"
        )


def data_error(error: tf.errors.OpError) -> DataError | None:
    """The DataError that a pipeline function raised, dug out of TensorFlow's wrapping of it."""
    return bad_records.data_error(error)
