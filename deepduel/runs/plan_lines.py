"""What a session prints about the run that it trains: images, networks, and what to be aware of."""

import pathlib

import numpy as np

from deepduel.decoding.split import Split
from deepduel.reading import pipeline
from deepduel.runs import build, data_checks
from deepduel.runs.options import TaskOptions
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.progress import counted


def print_plan(
    train_split: Split, validation_split: Split, trainer: MultiTaskTrainer, reading: pipeline.ReadOptions
) -> None:
    """Prints how many images are read, in which size, and the network of each task."""
    height, width = reading.decoding(train_split).size
    print(
        f"{len(train_split):,} training and {counted(len(validation_split), 'validation image')}, "
        f"{height}x{width} pixels, batch {reading.batch_size}, micro-batch {trainer.micro_batch}"
    )
    for task in trainer.tasks:
        trained = sum(int(np.prod(variable.shape)) for variable in task.trained_variables)
        architecture = task.model.architecture
        print(
            f"{task.name}: {architecture.backbone} at {task.size} px{', shared' * task.shares_extractor}, "
            f"weights {architecture.weights}, "
            f"{trained:,} of {task.model.saved_model.count_params():,} parameters trained, "
            f"labels {', '.join(task.model.classes)}"
        )
        _warn_of_statistics(task, trainer.micro_batch, reading.batch_size)
        for split in train_split, validation_split:
            missing = data_checks.classes_without_images(split, task.name)
            if missing:
                print(f"{task.name}: split {split.name!r} has no image of {', '.join(missing)}")


def warn_of_head(task: TaskOptions) -> None:
    """Says where --weights names a model of a run whose head would be used by --start_from."""
    weights = pathlib.Path(task.architecture.weights)
    if weights.suffix == ".keras" and (weights.parent.parent / "run.json").exists():
        print(
            f"{task.axis}: takes the backbone of {weights}, and not its head; --start_from={weights.parent} "
            "takes both"
        )


def _warn_of_statistics(task: Task, micro_batch: int, batch_size: int) -> None:
    if task.trains_statistics and build.normalises(task) and micro_batch < batch_size:
        print(
            f"{task.name}: trains batch norm, whose statistics are those of micro-batches of {micro_batch} "
            f"images and not of the batch of {batch_size}; --batch_norm=frozen trains without them"
        )
