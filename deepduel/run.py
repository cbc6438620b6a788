"""A run: its folder, its models, and fit with all that goes on around the steps.

RUN/train.flags               reproduces the run
RUN/<task>/epoch-01.keras …   one self-contained model per epoch
RUN/<task>/best.keras         the one with the best validation accuracy
RUN/resume/                   see state
RUN/history.csv               one row per epoch
RUN/tensorboard/              scalars and a grid of augmented samples
"""

import dataclasses
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

from deepduel import callbacks, faults, models, order, pipeline, state, tensorboard
from deepduel.augmentation import Augmentation
from deepduel.card import RunCard
from deepduel.mixing import Mixing
from deepduel.shards import Split
from deepduel.training import Duel, Task
from tfrecords_tools.cli import DataError, UsageError

# Flags that a run may go on with another value of: its length, where things lie, how often it saves.
_MAY_CHANGE = tuple(
    f"--{name}="
    for name in ("epochs", "data_dir", "workdir", "threads", "cache", "save_every", "max_minutes")
)


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """How one label axis is learnt.

    Attributes:
      axis: the label axis.
      architecture: of its network.
      augmentation: of its training images.
      learning_rate: of Adam.
      mixing: of its training images with one another.
    """

    axis: str
    architecture: models.Architecture
    augmentation: Augmentation
    learning_rate: float = 0.001
    mixing: Mixing = Mixing()

    def __post_init__(self):
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be above 0, got {self.learning_rate}")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Everything that decides a run, but for the tasks' own options.

    Attributes:
      data_dir, workdir: folder of shards to read, folder of the run to write.
      train_split, validation_split: names of splits.
      reading: how both are read; `size` None means the images' own size if they have one, else
        the largest input of the tasks.
      epochs: to train in all.
      micro_batch: images per pass through augmentation and frozen backbones.
      seed: of weights, order and augmentation.
      save_seconds, save_steps: how often the state is saved within an epoch; None: not for this reason.
      max_minutes: to train in this session, then the state is saved; 0: no limit.
    """

    data_dir: str
    workdir: str
    train_split: str
    validation_split: str
    reading: pipeline.Reading
    epochs: int
    micro_batch: int
    seed: int
    save_seconds: float | None = 300
    save_steps: int | None = None
    max_minutes: float = 0

    def __post_init__(self):
        for name in ("epochs", "micro_batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


def train(options: RunOptions, tasks: list[TaskOptions], *, flags: str) -> dict[str, float]:
    """Trains, from where the run folder stands, to the last epoch.

    Args:
      flags: the flagfile that reproduces the run; a run folder made with other flags is refused.

    Returns:
      The last epoch's row of history.csv.

    Raises:
      UsageError, DataError: the options or the data are bad, or the folder holds another run.
    """
    train_split = Split(options.data_dir, options.train_split)
    validation_split = Split(options.data_dir, options.validation_split)
    _check_labels(train_split, tasks)
    _check_labels(validation_split, tasks)
    reading = _reading(options.reading, train_split, validation_split, tasks)
    workdir = pathlib.Path(options.workdir)
    _check_folder(workdir, flags)
    duel = _duel(options, tasks, train_split)
    _write_flags(workdir, flags)
    _keep_card(_card(options, train_split, duel, reading), workdir)
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
    return _fit(options, duel, train_split, validation_split, reading, stand, flags)


def _fit(options, duel, train_split, validation_split, reading, stand, flags) -> dict[str, float]:
    """From `stand` to the last epoch: what is left of a begun epoch, then the whole ones."""
    workdir, batch_size = pathlib.Path(options.workdir), reading.batch_size
    steps = order.steps_per_epoch(len(train_split), batch_size)
    validation = pipeline.eval_batches(validation_split, reading)
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
    board = tensorboard.Board(duel, workdir / "tensorboard", images=len(train_split), batch_size=batch_size)
    around = [
        callbacks.Clock(duel, images=len(train_split), batch_size=batch_size),
        callbacks.Console(duel, train_split, validation_split, batch_size=batch_size, epochs=options.epochs),
        board,
        callbacks.NonFinite(duel, train_split, workdir / "non_finite.csv", keeper),
        keeper,
    ]
    if not stand.epoch and not stand.step:
        board.start(flags, pipeline.train_batches(train_split, reading, order.Position(options.seed)))
    keeper.listen()
    duel.go_on_at(stand.step)
    for first, last, start in _stretches(stand, options.epochs):
        position = order.Position(options.seed, first, start)
        duel.fit(
            pipeline.train_batches(train_split, reading, position),
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


def _reading(reading, train_split, validation_split, tasks) -> pipeline.Reading:
    """Both splits in one size: their own if they share one, else the largest input of the tasks."""
    if reading.size is None and (
        train_split.one_size is None or train_split.one_size != validation_split.one_size
    ):
        side = max(task.architecture.image_size for task in tasks)
        return dataclasses.replace(reading, size=(side, side))
    return reading


def _check_folder(workdir: pathlib.Path, flags: str) -> None:
    """Raises DataError unless the folder is new, empty, or holds a run of the same flags."""
    path = workdir / "train.flags"
    if path.exists():
        known, asked = _flag_lines(path.read_text("utf-8")), _flag_lines(flags)
        if known != asked:
            differing = sorted((known | asked).difference(known & asked))
            raise DataError(
                f"{workdir} holds a run of other settings ({'; '.join(differing)}); "
                "give another --workdir, or the flags of its train.flags"
            )
    elif workdir.exists() and any(not path.name.startswith(".") for path in workdir.iterdir()):
        raise DataError(f"{workdir}: is not empty and holds no run (no train.flags); give another --workdir")


def _write_flags(workdir: pathlib.Path, flags: str) -> None:
    path = workdir / "train.flags"
    if path.exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(".train.flags.partial")
    partial.write_text(flags, "utf-8")
    partial.replace(path)


def _card(options: RunOptions, split: Split, duel: Duel, reading: pipeline.Reading) -> RunCard:
    tasks = {task.name: {"classes": list(task.model.classes), "image_size": task.size} for task in duel.tasks}
    decoding = reading.decoding(split)
    manifest = split.manifest
    return RunCard(
        tasks, decoding.size, decoding.fit, decoding.fast, manifest.name, manifest.source, options.seed
    )


def _flag_lines(text: str) -> set[str]:
    """The settings that must agree for a run to go on; its length may change."""
    lines = {line.strip() for line in text.splitlines()}
    return {line for line in lines if line.startswith("--") and not line.startswith(_MAY_CHANGE)}


def _keep_card(card: RunCard, workdir: pathlib.Path) -> None:
    """Writes run.json, or checks that the run was begun on the same data."""
    if (workdir / "run.json").exists():
        known = RunCard.load(workdir)
        if known.data_source != card.data_source:
            raise DataError(
                f"{workdir} holds a run on other data ({known.data_name}, source {known.data_source[:12]}; "
                f"now {card.data_name}, source {card.data_source[:12]}); give another --workdir"
            )
        return
    card.save(workdir)


def _duel(options: RunOptions, tasks: list[TaskOptions], split: Split) -> Duel:
    built = []
    for task in tasks:
        architecture = task.architecture
        model = models.build(task.axis, architecture, split.manifest.axes[task.axis], seed=options.seed)
        optimizer = keras.optimizers.Adam(task.learning_rate)
        if architecture.trainable and architecture.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        built.append(Task(task.axis, model, task.augmentation, optimizer, task.mixing))
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
        trained = sum(int(np.prod(variable.shape)) for variable in duel.trained_variables(task))
        architecture = task.model.architecture
        print(
            f"{task.name}: {architecture.backbone} at {task.size} px, weights {architecture.weights}, "
            f"{trained:,} of {task.model.saved_model.count_params():,} parameters trained, "
            f"labels {', '.join(task.model.classes)}"
        )


def data_error(error: tf.errors.OpError) -> DataError | None:
    """The DataError that a pipeline function raised, dug out of TensorFlow's wrapping of it."""
    return faults.data_error(error)
