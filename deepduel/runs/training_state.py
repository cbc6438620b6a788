"""The state of a run on disk: every variable that training changes, and where it stands.

    RUN/resume/state-EPOCH-STEP.npz    arrays v0, v1, … in the order of Duel.state_variables(),
                                       `about`: JSON (uint8) of the fields of `State`

Published by rename; the two newest are kept. Reading checks the CRC-32 of every array (the
ZIP container's own), so a damaged file is noticed and the one before it is used.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import zipfile
import zlib

import numpy as np

_NAME = re.compile(r"state-(\d+)-(\d+)\.npz")
_KEPT = 2


@dataclasses.dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
      epoch, step: the next batch to train on, counted from 0.
      history: one dict per finished epoch.
      best: per task, (monitored value, epoch counted from 1) of the best epoch so far.
      stopped: {task: epoch counted from 1} of tasks that stopped early.
    """

    epoch: int = 0
    step: int = 0
    history: tuple[dict, ...] = ()
    best: dict[str, tuple[float, int]] = dataclasses.field(default_factory=dict)
    stopped: dict[str, int] = dataclasses.field(default_factory=dict)


class Writer:
    """Saves states in the background: values are copied at once, the file is written by a thread."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._running: concurrent.futures.Future | None = None

    def save(self, state: State, variables: list) -> None:
        """Waits for the file before this one, so that at most one copy is held. Raises its OSError."""
        self.wait()
        self._running = self._pool.submit(_write, self._folder, state, _copies(variables))

    def wait(self) -> None:
        """Until the last file is on disk. Raises OSError when it could not be written."""
        if self._running is not None:
            running, self._running = self._running, None
            running.result()


def save(folder: pathlib.Path, state: State, variables: list) -> pathlib.Path:
    """Writes the state and removes all but the two newest. Returns the file."""
    return _write(folder, state, _copies(variables))


def _copies(variables: list) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]  # copies, not views of live memory


def _write(folder: pathlib.Path, state: State, values: list[np.ndarray]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    about = np.frombuffer(json.dumps(dataclasses.asdict(state)).encode(), np.uint8)
    arrays = {f"v{number}": value for number, value in enumerate(values)}
    path = folder / f"state-{state.epoch:06d}-{state.step:09d}.npz"
    partial = folder / f".{path.name}.partial"
    with partial.open("wb") as file:
        np.savez(file, about=about, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in _states(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def load(folder: pathlib.Path, variables: list) -> tuple[State | None, list[str]]:
    """Sets the variables to the newest whole state.

    Returns:
      The state (None when there is none) and a line for each damaged file that was passed over.
    """
    damaged = []
    for path in reversed(_states(folder)):
        try:
            state, arrays = _read(path)
            shapes = [tuple(variable.shape) for variable in variables]
            if not arrays or [array.shape for array in arrays] != shapes[: len(arrays)]:
                raise ValueError("its variables are not those of this run")
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            damaged.append(f"{path}: damaged ({error}), going back to the state before it")
            continue
        for variable, array in zip(variables, arrays, strict=False):  # later versions add at the end
            variable.assign(array)
        return state, damaged
    return None, damaged


def _read(path: pathlib.Path) -> tuple[State, list[np.ndarray]]:
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(file["about"].tobytes())
        arrays = [file[f"v{number}"] for number in range(len(file.files) - 1)]
    best = {task: tuple(value) for task, value in about["best"].items()}
    return State(
        about["epoch"], about["step"], tuple(about["history"]), best, about.get("stopped", {})
    ), arrays


def _states(folder: pathlib.Path) -> list[pathlib.Path]:
    """State files, oldest first."""
    return sorted(path for path in folder.glob("state-*.npz") if _NAME.fullmatch(path.name))
