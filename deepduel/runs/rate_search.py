"""--find_learning_rate: the loss at learning rates from very low to too high, in one short training.

The range test of arXiv 1506.01186 in the form of fast.ai: from the run's initial weights the rate grows
exponentially from step to step, until every task's loss has left its lowest far behind. The suggestion is a
tenth of the rate at which the smoothed loss is lowest.

    RUN/find_learning_rate/TASK.png      the curve
    RUN/find_learning_rate/rates.csv     learning_rate, and a loss per task
    RUN/find_learning_rate/events…       the same for TensorBoard
"""

import csv
import dataclasses
import math
import pathlib
import shlex
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.runs import build, curve_picture, micro_batch_search
from deepduel.runs.options import RunOptions, TaskOptions
from deepduel.runs.run_folder import SEARCH_FOLDER
from deepduel.training import optimizers
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.atomic import published
from tfrecords_tools.progress import Progress

_LOWEST, _HIGHEST, _STEPS = 1e-7, 10.0, 100
_REACH = 5  # steps on each side of one, whose mean smooths the loss
_TOO_HIGH = 4.0  # times the lowest smoothed loss
_FIRST = 10  # steps; what comes before says little


@dataclasses.dataclass(frozen=True)
class Curve:
    """The loss of one task by learning rate.

    Attributes:
      rates, losses: of each step, up to the first loss that is not finite.
    """

    rates: list[float] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)

    @property
    def smoothed(self) -> list[float]:
        """The means of each loss and its neighbours, which follow the loss without a delay."""
        losses = self.losses
        return [float(np.mean(losses[max(i - _REACH, 0) : i + _REACH + 1])) for i in range(len(losses))]

    @property
    def has_exploded(self) -> bool:
        """Whether the latest smoothed loss is far above the lowest."""
        means = self.smoothed
        return len(means) > _FIRST and means[-1] > _TOO_HIGH * min(means)

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate of the lowest smoothed loss; None where that is within the losses' scatter."""
        means = self.smoothed
        if len(means) <= _FIRST:
            return None
        lowest = _FIRST + int(np.argmin(means[_FIRST:]))
        scatter = float(np.std(np.subtract(self.losses[: lowest + 1], means[: lowest + 1])))
        if means[_FIRST] - means[lowest] <= max(scatter, 0.01 * means[_FIRST]):
            return None
        return self.rates[lowest] / 10


def run(
    options: RunOptions, tasks: Sequence[TaskOptions], split: Split, reading: pipeline.ReadOptions
) -> None:
    """Searches, writes the curves, and prints a suggestion for each task.

    Args:
      split: the training split.
      reading: how it is read.
    """
    constant = [
        dataclasses.replace(
            task, optimizer=dataclasses.replace(task.optimizer, schedule="constant", warmup="0")
        )
        for task in tasks
    ]
    trainer = build.trainer(options, constant, split)
    micro_batch_search.choose(
        trainer,
        micro_batch=options.micro_batch,
        compiled=options.jit_compile,
        batch_size=reading.batch_size,
        workdir=None,
    )
    batches = pipeline.train_batches(split, reading, order.Position(options.seed))
    curves = search(trainer, batches)
    folder = pathlib.Path(options.workdir, SEARCH_FOLDER)
    _write(curves, folder)
    for name, curve in curves.items():
        flag = f"--learning_rate={name}=" if len(curves) > 1 else "--learning_rate="
        rate = curve.suggestion
        advice = (
            f"try {flag}{rate:.1g}" if rate else "no suggestion, as the loss falls by less than its noise"
        )
        print(f"{name}: {advice}; the curve is {folder / name}.png")
    print(shlex.join(["tensorboard", f"--logdir={folder}"]))


def search(trainer: MultiTaskTrainer, batches: tf.data.Dataset, *, steps: int = _STEPS) -> dict[str, Curve]:
    """Trains with growing rates. The trainer's weights are changed.

    Args:
      trainer: whose optimizers have constant rates.
      batches: endless.
      steps: how many rates are tried at most.
    """
    step, iterator = trainer.make_train_function(), iter(trainer.on_device(batches))
    curves = {task.name: Curve() for task in trainer.tasks}
    with Progress("learning rates", total=steps, unit="steps") as bar:
        for number, rate in enumerate(np.geomspace(_LOWEST, _HIGHEST, steps).tolist(), start=1):
            for task in trainer.running:
                optimizers.set_rate(task.optimizer, rate)
            trainer.reset_metrics()
            logs = step(iterator)
            for task in list(trainer.running):
                curve, loss = curves[task.name], float(logs[f"{task.name}_loss"])
                if not float(logs[f"{task.name}_skipped_steps"]) and math.isfinite(loss):
                    curve.rates.append(rate)
                    curve.losses.append(loss)
                    if not curve.has_exploded:
                        continue
                trainer.stop(task)
            bar.update(number)
            if not trainer.running:
                break
    return curves


def _write(curves: dict[str, Curve], folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    longest = max((curve.rates for curve in curves.values()), key=len)
    with published(folder / "rates.csv") as file:
        writer = csv.writer(file)
        writer.writerow(["learning_rate", *(f"{name}_loss" for name in curves)])
        for number, rate in enumerate(longest):
            losses = [curve.losses[number : number + 1] for curve in curves.values()]
            writer.writerow([f"{rate:.4g}", *(f"{loss[0]:.6g}" if loss else "" for loss in losses)])
    for earlier in folder.glob("events.*"):
        earlier.unlink()
    with tf.summary.create_file_writer(str(folder)).as_default():
        for name, curve in curves.items():
            picture = curve_picture.draw(curve.rates, curve.losses, curve.smoothed, marked=curve.suggestion)
            with published(folder / f"{name}.png", binary=True) as file:
                Image.fromarray(picture[0]).save(file, "PNG")
            tf.summary.image(f"{SEARCH_FOLDER}/{name}", picture, step=0)
            for number, (rate, loss) in enumerate(zip(curve.rates, curve.smoothed, strict=True)):
                tf.summary.scalar(f"{SEARCH_FOLDER}/{name}_smoothed_loss", loss, step=number)
                tf.summary.scalar(f"{SEARCH_FOLDER}/learning_rate", rate, step=number)
