"""A training run: checks what is asked for, opens the run's folder, and fits from where the run is.

RUN/train.flags, changes.csv  see run_folder
RUN/run.json                  the data, the sizes and the classes, for commands that use the models
RUN/<task>/, RUN/history.csv  see epoch_files
RUN/resume/                   see training_state
RUN/tensorboard/              see tensorboard
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib

import tensorflow as tf

from deepduel.decoding.image import libraries
from deepduel.decoding.split import Split
from deepduel.networks import input_filters
from deepduel.networks.run_card import InitialCard, RunCard, TaskCard
from deepduel.reading import pipeline
from deepduel.runs import (
    agreement,
    build,
    data_checks,
    dry_run,
    fit_loop,
    initial_weights,
    memory_fallback,
    micro_batch_search,
    plan_lines,
    rate_search,
    run_folder,
    training_state,
)
from deepduel.runs.initial_weights import InitialWeights
from deepduel.runs.options import RunOptions, TaskOptions
from deepduel.training import optimizers
from deepduel.training.passes import Passes
from deepduel.training.team import Team
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.errors import DataError
from tfrecords_tools.progress import counted

FEW_UPDATES = 100  # of the weights in a whole run, below which it warns


def train(
    options: RunOptions,
    tasks: list[TaskOptions],
    *,
    flags: str,
    defaults: str = "",
    team: Team | None = None,
) -> training_state.State:
    """Trains from the position of the run in its folder to the last epoch.

    Args:
      options: of the run.
      tasks: one per label axis to learn.
      flags: the flagfile that reproduces the run; a run folder with other flags is refused.
      defaults: the flagfile of all defaults, for folders that an earlier version began.
      team: the processes of `options.cluster`; worker 0 writes.

    Returns:
      The state of the run; a new one for a dry run.

    Raises:
      UsageError, DataError: the options or the data are bad, or the folder holds another run.
      Stopped: a signal or the time limit ended the session early; the state is saved.
    """
    train_split = Split(options.data_dir, options.train_split)
    validation_split = Split(options.data_dir, options.validation_split)
    reading = data_checks.checked_reading(options, tasks, train_split, validation_split)
    workdir, team = pathlib.Path(options.workdir), team or Team()
    agreement.check_start(team, flags, _data_sha256(train_split, validation_split))
    axes = [task.axis for task in tasks]
    changes = run_folder.check(workdir, flags, defaults, axes) if team.leads else []
    if options.dry_run:
        _dry_run(build.trainer(options, tasks, train_split), train_split, validation_split, reading, options)
        return training_state.State()
    if options.find_learning_rate:
        rate_search.run(options, tasks, train_split, dataclasses.replace(reading, cache="none"))
        return training_state.State()
    with contextlib.ExitStack() as stack:
        initial = _open_folder(stack, tasks, workdir) if team.leads else None
        if initial and any(change.flag == "weights" for change in changes):
            initial_weights.check_moved(tasks, initial)
        trainer = build.trainer(options, tasks, train_split, initial, team)
        _check_micro_batch(trainer, changes)
        if initial:
            starts = {task.axis: initial[task.axis].card(task) for task in tasks}
            card = _card(options, train_split, validation_split, trainer, reading, starts)
            _write_beginning(workdir, flags, card, train_split)

        def restore() -> training_state.State:
            return _restore(trainer, workdir, tasks)

        state = restore()
        agreement.check_weights(trainer)
        session = fit_loop.Session(options, trainer, train_split, validation_split, reading, state, flags)
        if _is_over(session):
            return state
        if team.leads:
            run_folder.record(workdir, changes, epoch=state.epoch, step=state.step)
        _print_beginning(session, tasks, changes)
        return memory_fallback.fit(session, restore)


def _open_folder(
    stack: contextlib.ExitStack, tasks: list[TaskOptions], workdir: pathlib.Path
) -> dict[str, InitialWeights]:
    """Locks the run's folder, and returns what the networks of each task start from there."""
    stack.enter_context(run_folder.locked(workdir))
    return stack.enter_context(initial_weights.in_folder(tasks, workdir))


def _write_beginning(workdir: pathlib.Path, flags: str, card: RunCard, split: Split) -> None:
    """Writes what a begun run has, and checks that it is of this data."""
    if not (workdir / run_folder.FLAGS_NAME).exists():  # first, so that a killed command can be repeated
        run_folder.write_flags(workdir, flags)
    initial_weights.keep(workdir)
    run_folder.keep_card(card, workdir, split.manifest)
    run_folder.write_flags(workdir, flags)


def _restore(
    trainer: MultiTaskTrainer, workdir: pathlib.Path, tasks: list[TaskOptions]
) -> training_state.State:
    """Sets all variables to the last saved state, and learning rates that have changed to those of `tasks`.

    In a team that is the state that worker 0 sees. It says with which rate it was saved, and not train.flags,
    which a session replaces before it saves its first state.
    """
    stored: training_state.State | None = None
    damaged: list[str] = []
    if trainer.team.leads:
        stored, damaged = training_state.load(workdir / "resume", trainer.state_variables())
    stored = training_state.shared(trainer.team, stored, trainer.state_variables())
    state = stored or training_state.State()
    for task, options in zip(trainer.tasks, tasks, strict=True):
        rate = options.optimizer.learning_rate
        if stored and state.learning_rates.get(task.name) != rate:
            optimizers.set_rate(task.optimizer, rate)
        state.learning_rates[task.name] = rate
    for task in trainer.tasks:
        input_filters.reset_kernels(task.model.extractor)
    for line in damaged:
        print(line)
    return state


def _is_over(session: fit_loop.Session) -> bool:
    """Whether nothing is left to train; says so."""
    state, planned = session.state, session.options.length.planned(session.state.epoch_seconds)
    if len(state.stopped) == len(session.trainer.tasks):
        print(f"{session.workdir}: all tasks have stopped early, after {counted(state.epoch, 'epoch')}")
        return True
    if planned and state.epoch >= planned:
        print(f"{session.workdir} has finished its {counted(planned, 'epoch')}; raise --epochs to train more")
        return True
    return False


def _print_beginning(
    session: fit_loop.Session, tasks: list[TaskOptions], changes: list[run_folder.Change]
) -> None:
    """Prints where the run is and what it trains, once the micro-batch is known."""
    state, trainer, reading = session.state, session.trainer, session.reading
    _choose_micro_batch(session)
    if state.begun:
        planned = session.options.length.planned(state.epoch_seconds)
        total = f" of {planned}" if planned else ""
        print(f"resuming at epoch {state.epoch + 1}{total}, step {state.step}")
        for change in changes:
            print(f"changed: {change}")
    else:
        for task_options in tasks:
            plan_lines.warn_of_head(task_options)
    plan_lines.print_plan(session.train_split, session.validation_split, trainer, reading)
    for task_options in tasks:
        print(task_options.augmentation_line)
    epochs = session.options.length.epochs
    updates = session.steps_per_epoch * (epochs or FEW_UPDATES)
    if updates < FEW_UPDATES:
        print(
            f"warning: {counted(updates, 'update')} will teach little; for {FEW_UPDATES} or more, raise "
            f"--epochs ({epochs}), or use a --batch_size below {reading.batch_size} in another --workdir"
        )


def _choose_micro_batch(session: fit_loop.Session) -> None:
    """Sets the micro-batch and whether XLA compiles, in a team those that worker 0 finds for its part."""
    trainer = session.trainer
    team = trainer.team

    def choose() -> list:
        micro_batch_search.choose(
            trainer,
            micro_batch=session.options.micro_batch,
            compiled=session.options.jit_compile,
            batch_size=session.reading.batch_size // team.count,
            workdir=session.workdir,
        )
        return [trainer.micro_batch, trainer.passes.compiled]

    trainer.micro_batch, by_xla = team.decided(choose)
    if not team.leads:
        trainer.passes = Passes(compiled=by_xla)


def _check_micro_batch(trainer: MultiTaskTrainer, changes: list[run_folder.Change]) -> None:
    """Raises DataError where another micro-batch would change the result of a begun run."""
    changed = [change for change in changes if change.flag == "micro_batch"]
    names = [task.name for task in trainer.tasks if task.trains_statistics and build.normalises(task)]
    if changed and names:
        raise DataError(
            f"{', '.join(names)} trains batch-norm statistics, which are those of micro-batches, so "
            f"--micro_batch must stay ({changed[0]}); give another --workdir to train with another size"
        )


def _dry_run(
    trainer: MultiTaskTrainer,
    train_split: Split,
    validation_split: Split,
    reading: pipeline.ReadOptions,
    options: RunOptions,
) -> None:
    reading = dataclasses.replace(reading, cache="none")
    micro_batch_search.choose(
        trainer,
        micro_batch=options.micro_batch,
        compiled=options.jit_compile,
        batch_size=reading.batch_size,
        workdir=None,
    )
    plan_lines.print_plan(train_split, validation_split, trainer, reading)
    try:
        dry_run.report(trainer, train_split, validation_split, reading, options=options)
    except tf.errors.ResourceExhaustedError as error:
        suggests_auto = options.micro_batch is not None
        raise memory_fallback.out_of_memory(trainer.micro_batch, suggests_auto=suggests_auto) from error


def _card(
    options: RunOptions,
    split: Split,
    validation_split: Split,
    trainer: MultiTaskTrainer,
    reading: pipeline.ReadOptions,
    starts: dict[str, InitialCard],
) -> RunCard:
    tasks: dict[str, TaskCard] = {
        task.name: {
            "classes": list(task.model.classes),
            "image_size": task.size,
            "crop_size": task.augmentation.crop_size,
            "initial_weights": starts[task.name],
        }
        for task in trainer.tasks
    }
    decoding = reading.decoding(split)
    manifest = split.manifest
    return RunCard(
        tasks, decoding.size, decoding.fit, decoding.fast, manifest.name, manifest.source, options.seed,
        libraries(), _data_sha256(split, validation_split), options.validation_split,
        manifest.options,
    )  # fmt: skip


def _data_sha256(*splits: Split) -> str:
    """SHA-256 over the sums of the splits' shards, hex: it changes with any image, label or pixel."""
    sums = [[split.name, *(shard.sha256[""] for shard in split.shards)] for split in splits]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()
