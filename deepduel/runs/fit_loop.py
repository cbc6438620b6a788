"""One session of a run: Keras' fit from where the run stands to its last epoch, or until it is stopped."""

import functools
import pathlib
import time

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.runs import callbacks, tensorboard, training_state
from deepduel.runs.checkpointing import Keeper
from deepduel.runs.mistakes import Mistakes
from deepduel.runs.options import RunOptions
from deepduel.training.features import Features
from deepduel.training.trainer import Duel

_ENDLESS = 10**9  # epochs; the keeper ends a run that is as long as a time allows


def fit(
    options: RunOptions,
    duel: Duel,
    train_split: Split,
    validation_split: Split,
    reading: pipeline.ReadOptions,
    stand: training_state.State,
    *,
    flags: str,
) -> dict[str, float]:
    """What is left of a begun epoch, then the whole ones. Returns `latest` of the history.

    Raises:
      Stopped: it was asked to stop, and the state is saved.
    """
    workdir, batch_size = pathlib.Path(options.workdir), reading.batch_size
    steps = order.steps_per_epoch(len(train_split), batch_size)
    keeper = Keeper(
        duel,
        workdir,
        stand,
        length=options.length,
        steps_per_epoch=steps,
        save_seconds=options.save_seconds,
        save_steps=options.save_steps,
        deadline=time.monotonic() + 60 * options.max_minutes if options.max_minutes else None,
    )
    keeper.listen()
    board = tensorboard.Board(
        duel,
        workdir / "tensorboard",
        images=len(train_split),
        batch_size=batch_size,
        mistakes=Mistakes(validation_split, reading),
    )
    profile = tensorboard.Profile(workdir / "tensorboard", *(options.profile_steps or (0, 0)))
    try:
        batches, validation, before = _batches(options, duel, train_split, validation_split, reading, keeper)
        board.start(stand.epoch, stand.step)
        if not stand.epoch and not stand.step:
            first = pipeline.train_batches(train_split, reading, order.Position(options.seed))
            board.describe(flags, train_split, first)
        non_finite = callbacks.NonFinite(duel, train_split, workdir / "non_finite.csv", keeper.save)
        non_finite.start(stand.epoch, stand.step)
        clock = callbacks.Clock(duel, images=len(train_split), batch_size=batch_size, before=before)
        console = callbacks.Console(
            duel, train_split, validation_split, batch_size=batch_size, epochs=lambda: keeper.planned
        )
        duel.go_on_at(stand.step)
        for first, last, start in _stretches(stand, options.length.epochs or _ENDLESS):
            duel.fit(
                batches(order.Position(options.seed, first, start)),
                validation_data=validation,
                steps_per_epoch=steps - start,
                initial_epoch=first,
                epochs=last,
                shuffle=False,  # the pipeline has its own order
                verbose=0,
                callbacks=[profile, clock, console, board, non_finite, keeper],
            )
            if duel.stop_training:
                break
    finally:
        keeper.finish()
        profile.finish()
        board.close()
    return latest(keeper.history)


def latest(history) -> dict[str, float]:
    """The last value of each column: a task that stopped early has none in later rows."""
    return {name: value for row in history for name, value in row.items()}


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


def _stretches(stand: training_state.State, epochs: int) -> list[tuple[int, int, int]]:
    """(first epoch, last epoch + 1, first step): Keras takes one number of steps per fit."""
    if not stand.step:
        return [(stand.epoch, epochs, 0)]
    rest = [(stand.epoch + 1, epochs, 0)] if stand.epoch + 1 < epochs else []
    return [(stand.epoch, stand.epoch + 1, stand.step), *rest]
