"""Whether the data and the options of a run go together, and the size that its images are read in."""

import dataclasses

import numpy as np

from deepduel.decoding.split import Split
from deepduel.reading.options import ReadOptions
from deepduel.runs.options import RunOptions, TaskOptions
from tfrecords_tools.errors import DataError, UsageError


def checked_reading(
    options: RunOptions, tasks: list[TaskOptions], train_split: Split, validation_split: Split
) -> ReadOptions:
    """`options.reading` with the size of the images, once everything has been checked.

    Both splits are read in one size: their own if they share one, else the largest input of the tasks.

    Raises:
      UsageError: options contradict one another.
      DataError: a split has no image, or no label to learn.
    """
    for split in train_split, validation_split:
        for task in tasks:
            _check_labels(split, task)
    if options.features is not None:
        _check_frozen(tasks)
    reading = _sized(options.reading, train_split, validation_split, tasks)
    _check_augmentation(tasks, reading.decoding(train_split).size, reading.batch_size)
    return reading


def _check_labels(split: Split, task: TaskOptions) -> None:
    if task.axis not in split.labels:
        raise UsageError(
            f"{split.data_dir} has no label axis {task.axis!r}; it has {', '.join(split.labels) or 'none'}"
        )
    labels = split.labels[task.axis]
    if not len(labels):
        raise DataError(
            f"{split.data_dir}: split {split.name!r} has no image; convert more images, or name another split"
        )
    if (labels < 0).all():
        raise DataError(
            f"{split.data_dir}: no image of split {split.name!r} has a label {task.axis!r}; "
            "name another split or task"
        )
    if len(split.manifest.axes[task.axis]) < 2:
        names = ", ".join(split.manifest.axes[task.axis])
        alone = len(split.manifest.axes) == 1
        remedy = "convert images of another class too" if alone else "leave it out of --tasks"
        raise DataError(
            f"{split.data_dir}: {task.axis!r} has a single label ({names}), so there is nothing to learn; "
            f"{remedy}"
        )


def classes_without_images(split: Split, axis: str) -> list[str]:
    """The names of the classes of which a split has no image."""
    labels = split.labels[axis]
    names = split.manifest.axes[axis]
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    return [name for name, count in zip(names, counts.tolist(), strict=True) if not count]


def _check_frozen(tasks: list[TaskOptions]) -> None:
    for task in tasks:
        if task.architecture.trainable:
            raise UsageError(
                f"--cache=features: {task.axis}'s backbone is trained ({task.architecture.backbone}), so its "
                "features change with every step; freeze it, or use --cache=ram or decoded:FOLDER"
            )
        if task.mixing:
            raise UsageError(
                f"--cache=features: {task.axis} mixes the images of a batch, which differ in every epoch; "
                "leave MixUp and CutMix out, or use --cache=ram or decoded:FOLDER"
            )


def _check_augmentation(tasks: list[TaskOptions], size: tuple[int, int], batch_size: int) -> None:
    for task in tasks:
        try:
            task.augmentation.check_image_size(*size)
        except ValueError as error:
            raise UsageError(f"{task.axis}: {error}") from None
        if task.mixing and batch_size == 1:
            raise UsageError(f"{task.axis}: {task.mixing} mixes the images of a batch, and batch_size is 1")


def _sized(
    reading: ReadOptions, train_split: Split, validation_split: Split, tasks: list[TaskOptions]
) -> ReadOptions:
    if reading.fit == "native":
        side = _native_side(tasks)
        return dataclasses.replace(reading, size=(side, side))
    of_one_size = train_split.one_size is not None and train_split.one_size == validation_split.one_size
    if reading.size is None and not of_one_size:
        side = max(task.architecture.image_size for task in tasks)
        return dataclasses.replace(reading, size=(side, side))
    return reading


def _native_side(tasks: list[TaskOptions]) -> int:
    """The input size that all tasks share. Raises UsageError when a task would have pixels resampled."""
    side = tasks[0].architecture.image_size
    for task in tasks:
        if task.architecture.image_size != side:
            raise UsageError(
                f"native resolution: {tasks[0].axis} takes {side} pixels and {task.axis} "
                f"{task.architecture.image_size}, so one would be resampled; give both one --image_size"
            )
        if task.augmentation.interpolates or task.augmentation.crop_size not in (0, side):
            raise UsageError(
                f"native resolution: the augmentation of {task.axis} rotates, zooms, shears, shifts by parts "
                "of a pixel or crops, which resamples; give --augmentation=forensic, robust or none"
            )
    return side
