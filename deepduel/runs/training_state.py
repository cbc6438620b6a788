"""The state of a run on disk: every variable that training changes, and its position.

    RUN/resume/state-EPOCH-STEP.npz    arrays v0, v1, … in the order of MultiTaskTrainer.state_variables(),
                                       `about`: JSON (uint8) of the fields of `State`

Files are published by rename. The two newest are kept, and the newest one that is known to be good (see
loss_range). Reading verifies the CRC-32 of every array (that of
the ZIP container), so a damaged file is noticed and the one before it is used.
"""

import concurrent.futures
import dataclasses
import json
import math
import pathlib
import re
import zipfile
import zlib
from collections.abc import Sequence

import keras
import numpy as np

from deepduel.training.team import Team
from tfrecords_tools import regular_files
from tfrecords_tools.atomic import published
from tfrecords_tools.format import documents
from tfrecords_tools.format.documents import AxisName, Count

Position = tuple[int, int]  # (epoch, step) of the next batch to train on, counted from 0

_NAME = re.compile(r"state-(\d+)-(\d+)\.npz")
_KEPT = 2
_WIDEST = 16  # bytes of an element of a variable, at most
_HEADER = 1 << 14  # bytes of an array's header, at most
_DAMAGE = (
    ValueError,
    KeyError,
    OSError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,  # an encrypted archive
    zipfile.BadZipFile,
    zlib.error,
)


@dataclasses.dataclass
class State:
    """The position of a run and what it has measured. The callbacks of a session keep it up to date.

    Attributes:
      epoch, step: the next batch to train on, counted from 0.
      history: one row per finished epoch, {column: value}.
      best: {task: (monitored value, epoch counted from 1)} of the best epoch so far.
      stopped: {task: epoch counted from 1} of tasks that stopped early.
      learning_rates: {task: peak learning rate}, by which a session notices that it has another one; empty in
        files of earlier versions.
      in_range: {task: position before the latest step whose loss was in range}, see loss_range.
    """

    epoch: Count = 0
    step: Count = 0
    history: list[dict[str, int | float]] = dataclasses.field(default_factory=list)
    best: dict[AxisName, tuple[float, Count]] = dataclasses.field(default_factory=dict)
    stopped: dict[AxisName, Count] = dataclasses.field(default_factory=dict)
    in_range: dict[AxisName, tuple[Count, Count]] = dataclasses.field(default_factory=dict)
    learning_rates: dict[AxisName, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(0 < row.get("seconds", 0) < math.inf for row in self.history):
            raise ValueError("an epoch of the history has no duration")

    @property
    def begun(self) -> bool:
        """Whether any batch of the run has been trained on."""
        return bool(self.epoch or self.step)

    @property
    def epoch_seconds(self) -> list[float]:
        """How long each finished epoch took."""
        return [row["seconds"] for row in self.history]

    def value_at_best(self, task: str, column: str) -> float:
        """The value of a column of the history in the best epoch of a task."""
        _, epoch = self.best[task]
        return next(row[column] for row in self.history if row["epoch"] == epoch)

    def last_improvement(self, task: str, column: str) -> int:
        """The first epoch, counted from 1, in which the monitored column had its best value.

        The best epoch may be a later one with the same value and a lower loss.
        """
        value, epoch = self.best[task]
        return next((int(row["epoch"]) for row in self.history if row[column] == value), epoch)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of a run's state at one position.

    Attributes:
      name: of its file.
      arrays: the contents of the file.
      good: the position up to which states are known to be good.
    """

    name: str
    arrays: dict[str, np.ndarray]
    good: Position

    @classmethod
    def of(cls, state: State, variables: Sequence[keras.Variable]) -> "Snapshot":
        """Copies the state and the variables."""
        arrays = {f"v{number}": variable.numpy() for number, variable in enumerate(variables)}
        arrays["about"] = np.frombuffer(json.dumps(dataclasses.asdict(state)).encode(), np.uint8)
        name = f"state-{state.epoch:06d}-{state.step:09d}.npz"
        return cls(name, arrays, min(state.in_range.values(), default=(0, 0)))


class StateWriter:
    """Writes states in the background."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Begins to write a state, once the one before it is on disk.

        Raises:
          OSError: the one before it could not be written.
        """
        self.wait()
        self._writing = self._pool.submit(_write, self._folder, snapshot)

    def wait(self) -> None:
        """Returns once the last file is on disk. Raises OSError when it could not be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def load(folder: pathlib.Path, variables: Sequence[keras.Variable]) -> tuple[State | None, list[str]]:
    """Assigns the newest undamaged state to the variables.

    Returns:
      The state (None when there is none), and a line for each damaged file that was passed over.
    """
    damaged = []
    for path in reversed(_states(folder)):
        try:
            state, arrays = _read(path, variables)
        except _DAMAGE as error:
            damaged.append(f"{path}: damaged ({error}); using the state before it")
            continue
        for variable, array in zip(variables, arrays, strict=False):  # later versions add at the end
            variable.assign(array)
        return state, damaged
    return None, damaged


def shared(team: Team, state: State | None, variables: Sequence[keras.Variable]) -> State | None:
    """Gives all workers of a team the state and the variables of worker 0, and returns that state."""
    if team.count == 1:
        return state
    team.share(variables)
    about = team.decided(lambda: json.dumps(dataclasses.asdict(state)) if state else None)
    return about and documents.read(about.encode(), State)


def remove_after(folder: pathlib.Path, position: Position) -> Position | None:
    """Removes the states after a position. Returns that of the newest one that is left."""
    kept = None
    for path in _states(folder):
        if _position(path) > position:
            path.unlink(missing_ok=True)
        else:
            kept = _position(path)
    return kept


def _write(folder: pathlib.Path, snapshot: Snapshot) -> None:
    """Publishes one state; removes all but the two newest and the newest one that is known to be good."""
    folder.mkdir(parents=True, exist_ok=True)
    with published(folder / snapshot.name, binary=True, durable=True) as file:
        np.savez(file, **snapshot.arrays)  # type: ignore[arg-type]  # numpy 2.4 takes arrays under any name
    states = _states(folder)
    known_good = [state for state in states if _position(state) <= snapshot.good]
    for old in states[:-_KEPT]:
        if old not in known_good[-1:]:
            old.unlink(missing_ok=True)


def _read(path: pathlib.Path, variables: Sequence[keras.Variable]) -> tuple[State, list[np.ndarray]]:
    """The state and the values of the first variables; later versions add variables at the end."""
    arrays = []
    with open(regular_files.open_descriptor(path), "rb") as file, zipfile.ZipFile(file) as archive:  # noqa: PTH123, a descriptor
        state = documents.read(_array(archive, "about", None, documents.MAX_BYTES).tobytes(), State)
        count = len(archive.namelist()) - 1
        if not 0 < count <= len(variables):
            raise ValueError("its variables are not those of this run")
        for number, variable in enumerate(variables[:count]):
            shape = tuple(variable.shape)
            arrays.append(_array(archive, f"v{number}", shape, math.prod(shape) * _WIDEST))
    return state, arrays


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...] | None, limit: int) -> np.ndarray:
    """One array of an .npz file; refused before it is read if it has another shape, or more bytes."""
    if archive.getinfo(f"{name}.npy").file_size > limit + _HEADER:
        raise ValueError(f"its array {name} is larger than that of this run")
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"its array {name} has another format")
        stored_shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        size = math.prod(stored_shape) * dtype.itemsize
    if dtype.kind not in "biuf" or size > limit or shape not in (None, stored_shape):
        raise ValueError("its variables are not those of this run")
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _states(folder: pathlib.Path) -> list[pathlib.Path]:
    """State files, oldest first."""
    return sorted(path for path in folder.glob("state-*.npz") if _NAME.fullmatch(path.name))


def _position(path: pathlib.Path) -> Position:
    epoch, step = re.findall(r"\d+", path.stem)
    return int(epoch), int(step)
