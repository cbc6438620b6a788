"""One session of a run: Keras' fit from the run's position to its last epoch, or until it is stopped."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.runs import callbacks, tensorboard
from deepduel.runs.agreement import SameWeights
from deepduel.runs.checkpointing import Checkpoint
from deepduel.runs.epoch_files import EpochFiles
from deepduel.runs.loss_range import LossRange
from deepduel.runs.mistakes import Mistakes
from deepduel.runs.non_finite import NonFinite
from deepduel.runs.options import RunOptions
from deepduel.runs.plateaus import Plateaus
from deepduel.runs.stopping import EarlyStopping, PlannedEnd, StopRequest
from deepduel.runs.training_state import State
from deepduel.training.features import Features
from deepduel.training.trainer import MultiTaskTrainer

_ENDLESS = 10**9  # epochs; PlannedEnd ends a run whose length is a time


@dataclasses.dataclass(frozen=True)
class Session:
    """What a session trains, on what, and from where.

    Attributes:
      options: of the run.
      trainer: compiled, with the variables of `state`.
      train_split, validation_split: the images.
      reading: how both are read.
      state: the run's position, kept up to date.
      flags: the flagfile of the run, for TensorBoard.
    """

    options: RunOptions
    trainer: MultiTaskTrainer
    train_split: Split
    validation_split: Split
    reading: pipeline.ReadOptions
    state: State
    flags: str

    @property
    def workdir(self) -> pathlib.Path:
        """The run's folder."""
        return pathlib.Path(self.options.workdir)

    @property
    def steps_per_epoch(self) -> int:
        """Updates per epoch."""
        return order.steps_per_epoch(len(self.train_split), self.reading.batch_size)


def fit(session: Session) -> State:
    """Trains the rest of an epoch that was begun, then the following ones. Returns `session.state`.

    Raises:
      Stopped: the session was requested to stop, and the state is saved.
    """
    options, trainer, state = session.options, session.trainer, session.state
    stop = StopRequest(options.max_minutes, trainer.team)
    checkpoint = Checkpoint(
        trainer,
        session.workdir / "resume",
        state,
        interval=options.save_interval,
        steps_per_epoch=session.steps_per_epoch,
        stop=stop,
    )
    board = _board(session)
    profile = tensorboard.Profile(session.workdir / "tensorboard", *(options.profile_steps or (0, 0)))
    with stop.listening(), contextlib.ExitStack() as at_the_end:
        for close in board.close, profile.finish, checkpoint.wait:  # the last one is called first
            at_the_end.callback(close)
        batches, validation, feature_seconds = _batches(session, checkpoint.stop_if_requested)
        validation = trainer.on_device(validation)
        if trainer.team.leads:
            _begin(board, session)
        end = PlannedEnd(trainer, state, options.length, steps_per_epoch=session.steps_per_epoch)
        listed = [
            _clock(session, feature_seconds),  # adds columns to the logs, which all below show or store
            *([profile, _console(session, end), board] if trainer.team.leads else []),
            LossRange(trainer, state),
            _non_finite(session, checkpoint),
            _epoch_files(session),
            EarlyStopping(trainer, state),
            Plateaus(trainer, state),
            end,
            SameWeights(trainer),
            checkpoint,
        ]
        trainer.resume_at(state.step)
        if not state.begun:
            checkpoint.save()  # to return to, where memory does not suffice for the first steps
        stop.nothing_to_save = True  # until the first step has ended
        for first_epoch, last_epoch, first_step in _stretches(state, options.length.epochs or _ENDLESS):
            trainer.fit(
                trainer.on_device(batches(order.Position(options.seed, first_epoch, first_step))),
                validation_data=validation,
                steps_per_epoch=session.steps_per_epoch - first_step,
                initial_epoch=first_epoch,
                epochs=last_epoch,
                shuffle=False,  # the pipeline has its own order
                verbose=0,
                callbacks=listed,
            )
            if trainer.stop_training:
                break
    return state


def _begin(board: tensorboard.Board, session: Session) -> None:
    state, options = session.state, session.options
    board.start(state.epoch, state.step)
    if not state.begun:
        first = pipeline.train_batches(session.train_split, session.reading, order.Position(options.seed))
        board.describe(session.flags, session.train_split, first)


def _clock(session: Session, feature_seconds: float) -> callbacks.Clock:
    return callbacks.Clock(
        session.trainer,
        images=len(session.train_split),
        batch_size=session.reading.batch_size,
        earlier_seconds=feature_seconds,
    )


def _board(session: Session) -> tensorboard.Board:
    return tensorboard.Board(
        session.trainer,
        session.workdir / "tensorboard",
        images=len(session.train_split),
        batch_size=session.reading.batch_size,
        mistakes=Mistakes(session.validation_split, session.reading),
    )


def _console(session: Session, end: PlannedEnd) -> callbacks.Console:
    return callbacks.Console(
        session.trainer,
        session.train_split,
        session.validation_split,
        batch_size=session.reading.batch_size,
        epochs=lambda: end.epochs,
    )


def _epoch_files(session: Session) -> EpochFiles:
    options = session.options
    return EpochFiles(
        session.trainer,
        session.workdir,
        session.state,
        epochs=options.length.epochs,
        keep_epochs=options.keep_epochs,
    )


def _non_finite(session: Session, checkpoint: Checkpoint) -> NonFinite:
    path, state = session.workdir / "non_finite.csv", session.state
    non_finite = NonFinite(session.trainer, session.train_split, path, state, rewind=checkpoint.rewind)
    non_finite.start(state.epoch, state.step)
    return non_finite


def _batches(
    session: Session, after_chunk: Callable[[], None]
) -> tuple[Callable[[order.Position], tf.data.Dataset], tf.data.Dataset, float]:
    """(function: position -> training batches, validation batches, seconds that computing features took)."""
    options = session.options
    if options.features is None:
        train = functools.partial(pipeline.train_batches, session.train_split, session.reading)
        return train, pipeline.eval_batches(session.validation_split, session.reading), 0.0
    both = []
    for split, views in ((session.validation_split, 0), (session.train_split, options.views)):
        features = Features(
            options.features,
            split,
            session.reading,
            session.trainer.tasks,
            micro_batch=session.trainer.micro_batch,
            passes=session.trainer.passes,
            seed=options.seed,
            views=views,
        )
        features.compute(after_chunk)
        both.append(features)
    validation, train_features = both
    seconds = validation.seconds + train_features.seconds
    return train_features.train_batches, validation.eval_batches(), seconds


def _stretches(state: State, epochs: int) -> list[tuple[int, int, int]]:
    """(first epoch, last epoch + 1, first step) of each fit: Keras takes one number of steps per fit."""
    if not state.step:
        return [(state.epoch, epochs, 0)]
    following = [(state.epoch + 1, epochs, 0)] if state.epoch + 1 < epochs else []
    return [(state.epoch, state.epoch + 1, state.step), *following]
