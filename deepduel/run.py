"""A run: its folder, its models, and fit with all that goes on around the steps.

RUN/train.flags               reproduces the run
RUN/<task>/epoch-01.keras …   one self-contained model per epoch
RUN/<task>/best.keras         the one with the best validation accuracy
RUN/resume/                   see state
RUN/history.csv               one row per epoch
RUN/tensorboard/              scalars and a grid of augmented samples
"""

import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil
import time

import keras
import numpy as np
import tensorflow as tf

from deepduel import models, order, pipeline, state, tensorboard
from deepduel.augment import Augmentation
from deepduel.shards import Split
from deepduel.training import Duel, Task
from tfrecords_tools.cli import DataError, UsageError
from tfrecords_tools.progress import Progress, duration


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """How one label axis is learnt.

    Attributes:
      axis: the label axis.
      architecture: of its network.
      augmentation: of its training images.
      learning_rate: of Adam.
    """

    axis: str
    architecture: models.Architecture
    augmentation: Augmentation
    learning_rate: float = 0.001

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
    """

    data_dir: str
    workdir: str
    train_split: str
    validation_split: str
    reading: pipeline.Reading
    epochs: int
    micro_batch: int
    seed: int

    def __post_init__(self):
        for name in ("epochs", "micro_batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class RunCard:
    """RUN/run.json: how images must be brought to a run's models, and what their outputs mean.

    Attributes:
      tasks: {axis: {"classes": label names in the order of the outputs, "image_size": pixels}}.
      size: (height, width) that images of another size are brought to before anything else.
      fit: how, "crop" or "pad".
      fast_decode: whether JPEGs were decoded approximately.
      data_name, data_source: of the manifest that was trained on.
      seed: of the run.
    """

    tasks: dict[str, dict]
    size: tuple[int, int]
    fit: str
    fast_decode: bool
    data_name: str
    data_source: str
    seed: int

    @classmethod
    def load(cls, workdir: str | os.PathLike) -> "RunCard":
        """Raises DataError when the folder holds no run."""
        path = pathlib.Path(workdir, "run.json")
        try:
            document = json.loads(path.read_text("utf-8"))
            return cls(**document | {"size": tuple(document["size"])})
        except FileNotFoundError:
            raise DataError(
                f"{workdir}: no run.json, so no run lies here; train one with python -m deepduel.train "
                f"--workdir={workdir}"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: unreadable ({error}); train the run anew") from error

    def save(self, workdir: pathlib.Path) -> None:
        partial = workdir / ".run.json.partial"
        partial.write_text(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(workdir / "run.json")


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
    _claim(workdir, flags)
    duel = _duel(options, tasks, train_split)
    _card(options, train_split, duel, reading).save(workdir)
    variables = duel.state_variables()
    stand, damaged = state.load(workdir / "resume", variables)
    for line in damaged:
        print(line)
    stand = stand or state.State()
    steps = order.steps_per_epoch(len(train_split), reading.batch_size)
    if stand.epoch >= options.epochs:
        print(f"{workdir} has all its {options.epochs} epochs already; raise --epochs to go on")
        return stand.history[-1]
    if stand.epoch:
        print(f"going on after epoch {stand.epoch} of {options.epochs}")
    _say_plan(train_split, validation_split, duel, reading)
    position = order.Position(options.seed, stand.epoch, 0)
    batches = pipeline.train_batches(train_split, reading, position)
    validation = pipeline.eval_batches(validation_split, reading)
    clock = _Clock(duel, len(train_split))
    keeper = _Keeper(duel, workdir, stand, options.epochs)
    board = tensorboard.Board(
        duel, workdir / "tensorboard", train_split, batch_size=reading.batch_size, steps=steps, flags=flags
    )
    board.samples(pipeline.train_batches(train_split, reading, order.Position(options.seed)))
    duel.fit(
        batches,
        validation_data=validation,
        steps_per_epoch=steps,
        initial_epoch=stand.epoch,
        epochs=options.epochs,
        shuffle=False,  # the pipeline has its own order
        verbose=0,
        callbacks=[
            clock,
            _Console(duel, train_split, validation_split, steps, options.epochs),
            board,
            keeper,
        ],
    )
    return keeper.history[-1]


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


def _claim(workdir: pathlib.Path, flags: str) -> None:
    """Writes train.flags, or checks that the folder's run had the same."""
    path = workdir / "train.flags"
    if path.exists():
        known, asked = _flag_lines(path.read_text("utf-8")), _flag_lines(flags)
        if known != asked:
            differing = sorted((known | asked).difference(known & asked))
            raise DataError(
                f"{workdir} holds a run of other settings ({'; '.join(differing)}); "
                "give another --workdir, or the flags of its train.flags"
            )
        return
    if workdir.exists() and any(workdir.iterdir()):
        raise DataError(f"{workdir}: is not empty and holds no run (no train.flags); give another --workdir")
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
    return {
        line for line in lines if line.startswith("--") and not line.startswith(("--epochs=", "--workdir="))
    }


def _duel(options: RunOptions, tasks: list[TaskOptions], split: Split) -> Duel:
    built = []
    for task in tasks:
        architecture = task.architecture
        model = models.build(task.axis, architecture, split.manifest.axes[task.axis], seed=options.seed)
        optimizer = keras.optimizers.Adam(task.learning_rate)
        if architecture.trainable and architecture.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        built.append(Task(task.axis, model, task.augmentation, optimizer))
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


class _Clock(keras.callbacks.Callback):
    """Adds to an epoch's logs what it cost, for the callbacks behind it to show and keep."""

    def __init__(self, duel: Duel, images: int):
        super().__init__()
        self._duel = duel
        self._images = images

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()
        self._waited = self._duel.input_seconds
        self._trained = None

    def on_test_begin(self, logs=None):
        self._trained = time.perf_counter() - self._started
        self._waited = self._duel.input_seconds - self._waited

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self._started
        logs["images_per_second"] = self._images / self._trained
        logs["input_wait_share"] = self._waited / self._trained


class _Keeper(keras.callbacks.Callback):
    """After each epoch: model files, history.csv, then the state that says they are there."""

    def __init__(self, duel: Duel, workdir: pathlib.Path, stand: state.State, epochs: int):
        super().__init__()
        self._duel = duel
        self._workdir = workdir
        self._digits = max(2, len(str(epochs)))
        self.history = list(stand.history)
        self._best = dict(stand.best)

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        self.history.append(row)
        for task in self._duel.tasks:
            self._save_model(task, epoch + 1, row[f"val_{task.name}_accuracy"])
        self._write_history()
        stand = state.State(epoch + 1, 0, tuple(self.history), self._best)
        state.save(self._workdir / "resume", stand, self._duel.state_variables())

    def _save_model(self, task: Task, epoch: int, accuracy: float) -> None:
        folder = self._workdir / task.name
        folder.mkdir(exist_ok=True)
        path = folder / f"epoch-{epoch:0{self._digits}d}.keras"
        partial = folder / ".partial.keras"
        task.model.saved_model.save(partial)
        partial.replace(path)
        if task.name not in self._best or accuracy > self._best[task.name][0]:
            self._best[task.name] = accuracy, epoch
            _copy(path, folder / "best.keras")

    def _write_history(self) -> None:
        path = self._workdir / "history.csv"
        partial = path.with_name(".history.csv.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.history[-1]))
            writer.writeheader()
            writer.writerows(self.history)
        partial.replace(path)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """A second name for the same bytes where the file system can, else a copy; by rename."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


class _Console(keras.callbacks.Callback):
    """Progress while an epoch runs, and one line per epoch."""

    def __init__(self, duel: Duel, train_split: Split, validation_split: Split, steps: int, epochs: int):
        super().__init__()
        self._duel = duel
        self._images = len(train_split)
        self._validation_images = len(validation_split)
        self._batch_size = -(-self._images // steps)
        self._epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1
        self._bar = Progress(f"epoch {self._epoch}/{self._epochs}", total=self._images)

    def on_train_batch_end(self, batch, logs=None):
        done = min((batch + 1) * self._batch_size, self._images)
        self._bar.update(done, self._accuracies(logs))

    def on_test_begin(self, logs=None):
        self._bar.close()
        self._bar = Progress("validating", total=self._validation_images)

    def on_test_batch_end(self, batch, logs=None):
        done = min((batch + 1) * self._batch_size, self._validation_images)
        self._bar.update(done, self._accuracies(logs))

    def on_epoch_end(self, epoch, logs=None):
        self._bar.close()
        parts = [f"epoch {self._epoch}/{self._epochs}"]
        for task in self._duel.tasks:
            loss, accuracy = logs[f"{task.name}_loss"], logs[f"val_{task.name}_accuracy"]
            parts.append(f"{task.name} loss {loss:.4f}, validation {accuracy:.2%}")
        parts.append(f"{logs['images_per_second']:,.0f} images/s, {duration(logs['seconds'])}")
        print(" | ".join(parts), flush=True)

    def _accuracies(self, logs) -> str:
        return ", ".join(
            f"{task.name} {float(logs[f'{task.name}_accuracy']):.1%}" for task in self._duel.tasks
        )


def data_error(error: tf.errors.OpError) -> DataError | None:
    """The DataError that a pipeline function raised, dug out of TensorFlow's wrapping of it."""
    found = re.search(r"DataError: (.*)", str(error))
    return DataError(found.group(1)) if found else None
