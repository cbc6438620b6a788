"""Trains one image classifier per label axis, all from one read of the shards.

    python -m deepduel.train --flagfile=artifact_original --data_dir=SHARDS \\
        --workdir=RUN

--flagfile takes a file or the name of a preset. The same command resumes the
run where it was stopped. To watch it: tensorboard --logdir=RUN/tensorboard

Flags marked [per task] may be repeated: VALUE is for all tasks, TASK=VALUE for
one of them, and the later one wins:

    --backbone=efficientnetv2s --backbone=category=xception
"""

import contextlib
import functools
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from deepduel import presets
from deepduel.callable_module import make_callable
from deepduel.runs import choices, held_out, run_options, task_flags, train_flags
from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError

if TYPE_CHECKING:
    from deepduel.runs.options import RunOptions, TaskOptions
    from deepduel.runs.training_state import State

FLAGS = flags.FlagValues()
train_flags.define(FLAGS)


def main(options: flags.FlagValues, typed: str | None = None) -> int:
    """Trains, and says where the models are. Returns the exit code.

    Args:
      options: the parsed flags.
      typed: the command line, to be repeated in order to resume; by default one with the run's train.flags.
    """
    from deepduel.runs.options import check_cluster, check_sharing

    axes = _axes(options)
    held_out.set_splits(options)
    reasons = choices.choose(options, axes)
    task_flags.replace_auto_precision(options)
    of_run = run_options.from_flags(options)
    tasks = task_flags.tasks(options, axes)
    if of_run.shared_backbone:
        check_sharing(tasks)
    if of_run.cluster:
        check_cluster(tasks)
    for line in reasons:
        print(line, flush=True)
    alone = of_run.cluster is None  # else a lost worker is logged in many lines before the one that names it
    cli.quiet_tensorflow(devices=alone, log_level=2 if alone else 3)  # usage errors need not wait for it
    from deepduel.reports import model_card
    from deepduel.runs.stopping import Stopped

    text = run_options.flagfile(options) + "".join(f"# {task.augmentation_line}\n" for task in tasks)
    defaults = run_options.flagfile(options, defaults=True)
    try:
        state = _train(of_run, tasks, flags=text, defaults=defaults)
    except Stopped as stop:
        own = cli.command_line("deepduel.train", [f"--flagfile={options.workdir}/train.flags"])
        print(f"{stop}; resume with:\n  {typed or own}")
        return stop.code
    if options.dry_run or options.find_learning_rate or (of_run.cluster and of_run.cluster.index):
        return 0
    for axis in axes:
        accuracy, (_, epoch) = state.value_at_best(axis, f"val_{axis}_accuracy"), state.best[axis]
        model = f"{options.workdir}/{axis}/best.keras"
        print(f"{axis}: validation accuracy {accuracy:.2%} at epoch {epoch}, the best one: {model}")
    model_card.write(options.workdir)
    words = [f"--workdir={options.workdir}", f"--data_dir={options.data_dir}"]
    print(f"evaluate: {cli.command_line('deepduel.evaluate', words)}")
    return 0


def _train(options: "RunOptions", tasks: "list[TaskOptions]", *, flags: str, defaults: str) -> "State":
    """Trains, alone or in a cluster, where worker 0 speaks for all. Returns the run's state."""
    from deepduel.decoding import bad_records
    from deepduel.runs import training_run
    from deepduel.training import joined_team

    with contextlib.ExitStack() as stack:
        team = stack.enter_context(joined_team.joined(options.cluster, command="deepduel.train"))
        if not team.leads:
            silence = stack.enter_context(pathlib.Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        stack.enter_context(bad_records.as_data_errors())
        return training_run.train(options, tasks, flags=flags, defaults=defaults, team=team)


def _axes(options: flags.FlagValues) -> list[str]:
    """The label axes to learn."""
    from tfrecords_tools.format import manifest

    try:
        known = list(manifest.load(options.data_dir).axes)
    except DataError as error:
        if not pathlib.Path(options.workdir, "run.json").exists():
            raise
        raise DataError(f"{error}; if the shards were moved, name their folder with --data_dir") from error
    axes = known if options.tasks is None else options.tasks
    if options.tasks == []:
        raise UsageError(f"--tasks names no task; {options.data_dir} has {', '.join(known)}")
    if not axes:
        raise DataError(
            f"{options.data_dir}: has no label axis to learn; convert with a --layout that names one"
        )
    for axis in axes:
        if axis not in known:
            raise UsageError(
                f"--tasks: {options.data_dir} has no label axis {axis!r}; it has {', '.join(known)}"
            )
    if len(set(axes)) < len(axes):
        raise UsageError(f"--tasks={','.join(axes)}: names a task twice")
    return axes


def entry() -> int:
    """The command; returns its exit code."""
    typed = cli.command_line("deepduel.train", sys.argv[1:])
    command = functools.wraps(main)(functools.partial(main, typed=typed))
    return cli.run(
        command, FLAGS, name="deepduel.train", argv=presets.resolve(sys.argv),
        usual=train_flags.USUAL, further=train_flags.FURTHER, usage="--data_dir=SHARDS --workdir=RUN",
    )  # fmt: skip


make_callable(__name__)

if __name__ == "__main__":
    sys.exit(entry())
