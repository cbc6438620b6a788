"""What happens when memory does not suffice: `--micro_batch=auto` continues with half the micro-batch.

The step that failed may have changed some variables already. So the run is restored from its last saved
state, exactly as a new session would do it, and continues from there.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from deepduel.runs import build, disk_space, fit_loop, micro_batch_search
from deepduel.runs.fit_loop import Session
from deepduel.runs.training_state import State
from tfrecords_tools.errors import DataError


def fit(session: Session, restore: Callable[[], State]) -> State:
    """As fit_loop.fit, with smaller and smaller micro-batches while memory does not suffice.

    Args:
      session: what is trained; where its options name a micro-batch, that one is not changed.
      restore: sets the trainer's variables to the last saved state, and returns it.

    Raises:
      DataError: memory does not suffice for the micro-batch of the options, or for one image at a time; or
        the disk is full. In a team every lack of memory raises it.
    """
    options, epochs = session.options, session.options.length.epochs
    remaining = epochs - session.state.epoch if epochs else None
    team = session.trainer.team
    if team.leads:
        disk_space.check(session.trainer, session.workdir, epochs=remaining, keep_epochs=options.keep_epochs)
    while True:
        size = session.trainer.micro_batch
        try:
            with disk_space.explained(session.trainer, session.workdir):
                return fit_loop.fit(session)
        except tf.errors.ResourceExhaustedError as error:
            if options.micro_batch is not None or size == 1 or team.count > 1:
                raise out_of_memory(size, suggests_auto=options.micro_batch is not None) from error
        session = _with_micro_batch(session, size // 2, restore)  # here the failed step's memory is free


def out_of_memory(micro_batch: int, *, suggests_auto: bool) -> DataError:
    """The error that names the micro-batch and what to try."""
    if micro_batch == 1:
        return DataError(
            "out of memory with micro-batch 1; lower --batch_size or --image_size, or choose a smaller "
            "--backbone or --head, in another --workdir"
        )
    auto = ", or --micro_batch=auto, which finds a size that fits" if suggests_auto else ""
    return DataError(
        f"out of memory with micro-batch {micro_batch}; try --micro_batch={micro_batch // 2}{auto}"
    )


def _with_micro_batch(session: Session, size: int, restore: Callable[[], State]) -> Session:
    trainer = session.trainer
    message = f"out of memory with micro-batch {trainer.micro_batch}: continuing with {size}"
    trainer.micro_batch = size
    trainer.start_again()
    micro_batch_search.lower(
        trainer,
        session.workdir,
        micro_batch=size,
        compiled=session.options.jit_compile,
        batch_size=session.reading.batch_size,
    )
    state = restore()
    print(f"{message}, from epoch {state.epoch + 1}, step {state.step}", flush=True)
    for task in trainer.tasks:
        if task.trains_statistics and build.normalises(task):
            print(f"{task.name}: its batch-norm statistics are those of micro-batches of {size} from now on")
    return dataclasses.replace(session, state=state)
