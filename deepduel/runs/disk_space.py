"""How much of the disk a run needs, whether it is there, and what to say when it is not.

A run keeps up to three states, writes a fourth before it removes one, and a model per task and epoch.
"""

import contextlib
import errno
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import keras
import numpy as np

from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.errors import DataError

_STATES = 4
# The disk or the user's share of it is full, or a file would exceed a limit. TensorFlow gives the words only.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = "No space left on device"


def state_bytes(trainer: MultiTaskTrainer) -> int:
    """Size of one saved state."""
    return _bytes(trainer.state_variables())


def epoch_bytes(trainer: MultiTaskTrainer) -> int:
    """Size of the models of one epoch."""
    return sum(_bytes(task.model.saved_model.variables) for task in trainer.tasks)


def free_bytes(folder: pathlib.Path) -> int:
    """Free bytes of the disk of a folder, which may not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def whole_run_bytes(trainer: MultiTaskTrainer, *, epochs: int, keep_epochs: int) -> int:
    """What a number of further epochs needs; `keep_epochs` of 0 keeps the models of all."""
    kept = min(epochs, keep_epochs + 2) if keep_epochs else epochs  # the best one, and the one being written
    return _STATES * state_bytes(trainer) + kept * epoch_bytes(trainer)


def check(trainer: MultiTaskTrainer, workdir: pathlib.Path, *, epochs: int | None, keep_epochs: int) -> None:
    """Prints a warning when the disk does not suffice for the run, whose length may not be known.

    Raises:
      DataError: it does not suffice for one state and the models of one epoch.
    """
    free, least = free_bytes(workdir), state_bytes(trainer) + epoch_bytes(trainer)
    if free < least:
        raise DataError(
            f"{workdir}: its disk has {_text(free)} free, but {_needs(trainer)}; free some space, or give a "
            "--workdir on another disk"
        )
    total = whole_run_bytes(trainer, epochs=epochs or 1, keep_epochs=keep_epochs)
    if total > free:
        print(
            f"warning: the run needs up to {_text(total)} of the disk of {workdir}, which has {_text(free)} "
            "free; --keep_epochs=1 keeps fewer models",
            flush=True,
        )


@contextlib.contextmanager
def explained(trainer: MultiTaskTrainer, workdir: pathlib.Path) -> Iterator[None]:
    """A block within which a full disk is a DataError that names the file and what is needed."""
    try:
        yield
    except Exception as error:  # h5py, Keras and TensorFlow have errors of their own; others are raised again
        full_disk = isinstance(error, OSError) and error.errno in _FULL
        if not full_disk and _FULL_WORDS not in str(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else _FULL_WORDS
        raise DataError(
            f"{getattr(error, 'filename', None) or workdir}: {reason}; {_needs(trainer)}, and "
            f"{_text(free_bytes(workdir))} are free. Free some space, also with --keep_epochs=1, and resume "
            "with the same command: it continues from the last state that was saved"
        ) from error


def _needs(trainer: MultiTaskTrainer) -> str:
    return f"a state needs {_text(state_bytes(trainer))} and an epoch's models {_text(epoch_bytes(trainer))}"


def _bytes(variables: Iterable[keras.Variable]) -> int:
    return sum(int(np.prod(part.shape)) * np.dtype(str(part.dtype)).itemsize for part in variables)


def _text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
