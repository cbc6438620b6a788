"""The model of another run that a task starts from. See weight_transfer for what is taken of it.

start-TASK.keras    the model that a run started from: a second name of the other run's file, or a copy of
                    it, so that a frozen backbone is the same in every session
start-TASK.json     where it came from, and its classes
"""

import dataclasses
import json
import os
import pathlib
import shutil

from deepduel.networks.run_card import RunCard
from tfrecords_tools.atomic import published, written_beside
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import documents


@dataclasses.dataclass(frozen=True)
class StartModel:
    """A saved model that a task starts from.

    Attributes:
      path: where it came from, the file of another run.
      classes: label names in the order of its outputs.
      copy: the file in the folder of the run that starts from it; "" where it has none.
    """

    path: str
    classes: tuple[str, ...]
    copy: str = ""

    @property
    def file(self) -> str:
        """The file to read."""
        return self.copy or self.path


def run_and_task(name: str, axis: str) -> tuple[pathlib.Path, str]:
    """The folder of a run and the name of its task that --start_from names for a task; see `find`."""
    path = pathlib.Path(name)
    if path.suffix == ".keras":
        return path.parent.parent, path.parent.name
    if (path / "run.json").exists() or not (path.parent / "run.json").exists():
        return path, axis
    return path.parent, path.name


def find(name: str, axis: str) -> StartModel:
    """The model that --start_from names.

    Args:
      name: RUN (then the run's task of the same name), RUN/TASK, or RUN/TASK/MODEL.keras.
      axis: the task that starts from it.

    Raises:
      UsageError: the run has no such task.
      DataError: there is no such run or model.
    """
    run, task = run_and_task(name, axis)
    model = pathlib.Path(name) if name.endswith(".keras") else run / task / "best.keras"
    tasks = RunCard.load(run).tasks
    if task not in tasks:
        names = ", ".join(tasks)
        raise UsageError(
            f"start_from={name}: {run} has no task {task!r}; it has {names}: name one as RUN/TASK, for one "
            f"task as --start_from={axis}={run}/{next(iter(tasks))}"
        )
    if not model.is_file():
        raise DataError(f"{model}: there is no such model; the first is saved at the end of the first epoch")
    return StartModel(str(model), tuple(tasks[task]["classes"]))


def kept(folder: pathlib.Path, axis: str) -> StartModel | None:
    """The model that a task started from, as `keep` left it in a folder; None if there is none."""
    model, about = _files(folder, axis)
    if not (model.exists() and about.exists()):
        return None
    try:
        return dataclasses.replace(documents.read_file(about, StartModel), copy=str(model))
    except (OSError, ValueError) as error:
        raise DataError(f"{about}: unreadable ({error}); begin the run again in another --workdir") from error


def keep(start: StartModel, folder: pathlib.Path, axis: str) -> StartModel:
    """Keeps the model in a folder, so that it stays what it is. Returns it with its copy."""
    model, about = _files(folder, axis)
    with written_beside(model) as partial:
        try:
            os.link(start.path, partial)
        except OSError:  # another file system
            shutil.copyfile(start.path, partial)
    with published(about) as file:
        json.dump({"path": start.path, "classes": start.classes}, file, ensure_ascii=False)
    return dataclasses.replace(start, copy=str(model))


def _files(folder: pathlib.Path, axis: str) -> tuple[pathlib.Path, pathlib.Path]:
    return folder / f"start-{axis}.keras", folder / f"start-{axis}.json"
