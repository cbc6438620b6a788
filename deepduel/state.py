"""The state of a run on disk: every variable that training changes, and where it stands.

    RUN/resume/state-EPOCH-STEP.npz    arrays v0, v1, … in the order of Duel.state_variables(),
                                       `about`: JSON (uint8) of the fields of `State`

Published by rename; the two newest are kept. Reading checks the CRC-32 of every array (the
ZIP container's own), so a damaged file is noticed and the one before it is used.
"""

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
      best: per task, (metric's value, epoch counted from 1) of the best epoch so far.
    """

    epoch: int = 0
    step: int = 0
    history: tuple[dict, ...] = ()
    best: dict[str, tuple[float, int]] = dataclasses.field(default_factory=dict)


def save(folder: pathlib.Path, state: State, variables: list) -> pathlib.Path:
    """Writes the state and removes all but the two newest. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    about = np.frombuffer(json.dumps(dataclasses.asdict(state)).encode(), np.uint8)
    arrays = {f"v{number}": np.asarray(variable) for number, variable in enumerate(variables)}
    path = folder / f"state-{state.epoch:06d}-{state.step:09d}.npz"
    partial = folder / f".{path.name}.partial"
    with partial.open("wb") as file:
        np.savez(file, about=about, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in _states(folder)[:-_KEPT]:
        old.unlink()
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
            if [array.shape for array in arrays] != [tuple(v.shape) for v in variables]:
                raise ValueError("its variables are not those of this run")
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            damaged.append(f"{path}: damaged ({error}), going back to the state before it")
            continue
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return state, damaged
    return None, damaged


def _read(path: pathlib.Path) -> tuple[State, list[np.ndarray]]:
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(file["about"].tobytes())
        arrays = [file[f"v{number}"] for number in range(len(file.files) - 1)]
    best = {task: tuple(value) for task, value in about["best"].items()}
    return State(about["epoch"], about["step"], tuple(about["history"]), best), arrays


def _states(folder: pathlib.Path) -> list[pathlib.Path]:
    """State files, oldest first."""
    return sorted(path for path in folder.glob("state-*.npz") if _NAME.fullmatch(path.name))
