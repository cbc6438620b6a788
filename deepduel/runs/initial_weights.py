"""The files that the tasks of a run start from. Its folder keeps them, so that it resumes without any other.

    RUN/resume/weights-TASK.h5     the file of --weights, with its own ending
    RUN/resume/start-TASK.keras    the model of --start_from; start-TASK.json has its classes
    RUN/.initial_weights/          the same, while the networks of a new run are built from them

A new run reads the files in its folder and not those that they come from, which another command may replace
or move at any time.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from deepduel.networks import start_model, task_model
from deepduel.networks.run_card import InitialCard
from deepduel.networks.start_model import StartModel
from deepduel.runs.options import TaskOptions
from tfrecords_tools.atomic import written_beside
from tfrecords_tools.errors import DataError

_NO_FILE = ("none", "imagenet")
_KEPT, _NEW = "resume", ".initial_weights"


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What the networks of one task start from.

    Attributes:
      file: the file with the backbone's weights; None where the architecture's `weights` name none.
      model: the model of another run; None for none.
      is_kept: whether the run was begun with it before.
    """

    file: pathlib.Path | None = None
    model: StartModel | None = None
    is_kept: bool = False

    def card(self, task: TaskOptions) -> InitialCard:
        """What run.json says about it."""
        if self.model is not None:
            run_task_file = pathlib.Path(self.model.path).parts[-3:]
            return {"name": "/".join(run_task_file), "sha256": _sha256(pathlib.Path(self.model.file))}
        name = pathlib.Path(task.architecture.weights).name
        return {"name": name, "sha256": _sha256(self.file) if self.file else ""}


def find(task: TaskOptions, workdir: pathlib.Path) -> InitialWeights:
    """What a task starts from: what its run keeps, or else what the options name.

    Raises:
      UsageError, DataError: there is no such file or model.
    """
    folder = workdir / _KEPT
    if task.start_from:
        kept = start_model.kept(folder, task.axis)
        return InitialWeights(
            model=kept or start_model.find(task.start_from, task.axis), is_kept=kept is not None
        )
    name = task.architecture.weights
    if name in _NO_FILE:
        return InitialWeights()
    for path in folder.glob(f"weights-{task.axis}.*"):
        return InitialWeights(file=path, is_kept=True)
    return InitialWeights(file=task_model.weights_file(name))


@contextlib.contextmanager
def in_folder(tasks: Sequence[TaskOptions], workdir: pathlib.Path) -> Iterator[dict[str, InitialWeights]]:
    """What each task starts from, as files of the run's folder. After the block those not kept are removed.

    Raises:
      UsageError, DataError: there is no such file or model, or it was moved while it was copied.
    """
    folder = workdir / _NEW
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    try:
        yield {task.axis: _in_folder(find(task, workdir), task, folder) for task in tasks}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(workdir: pathlib.Path) -> None:
    """Keeps what `in_folder` has copied, as what the run started from."""
    folder = workdir / _KEPT
    folder.mkdir(exist_ok=True)
    for path in sorted((workdir / _NEW).glob("*")):  # a .json before its .keras, which counts only with it
        path.replace(folder / path.name)


def check_moved(tasks: Sequence[TaskOptions], initial: dict[str, InitialWeights]) -> None:
    """Raises DataError where --weights of a begun run names another file than before with other content."""
    for task in tasks:
        path, file = pathlib.Path(task.architecture.weights), initial[task.axis].file
        if file is None or not initial[task.axis].is_kept:
            continue
        if not path.is_file() or _sha256(path) != _sha256(file):
            raise DataError(
                f"weights={path}: not the file that the run started from, of which {file} is a copy; leave "
                "the flag as it was, or give another --workdir"
            )


def _in_folder(initial: InitialWeights, task: TaskOptions, folder: pathlib.Path) -> InitialWeights:
    if initial.is_kept:
        return initial
    try:
        if initial.model is not None:
            folder.mkdir(exist_ok=True)
            return InitialWeights(model=start_model.keep(initial.model, folder, task.axis))
        if initial.file is not None:
            folder.mkdir(exist_ok=True)
            ending = ".weights.h5" if initial.file.name.endswith(".weights.h5") else initial.file.suffix
            path = folder / f"weights-{task.axis}{ending or '.h5'}"
            with written_beside(path) as partial:
                shutil.copyfile(initial.file, partial)
            return InitialWeights(file=path)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: was moved or removed while it was read; begin again") from error
    return initial


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
