"""The rows of `what_helps` and their trainings: (row, seed) -> run folder -> result as JSON."""

import contextlib
import csv
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

from tfrecords_tools import manifest
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError

BASE = "base"
TRAIN, EVALUATE = "deepduel.train", "deepduel.evaluate"
_SOURCE = re.compile(r"# weights from (\S+)")
_ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A flagfile.

    Attributes:
      title: its first line.
      lines: its flags.
      weights_from: the row whose backbone it starts from, if any.
    """

    path: pathlib.Path
    title: str
    lines: tuple[str, ...]
    weights_from: str | None

    @classmethod
    def read(cls, path: pathlib.Path) -> "Row":
        """Raises DataError when there is no title."""
        first, *rest = path.read_text("utf-8").splitlines() or [""]
        if not re.match(r"# \S", first):
            raise DataError(f"{path}: its first line must be '# TITLE', the row's name in the table")
        sources = [match[1] for line in rest if (match := _SOURCE.match(line))]
        lines = tuple(line for line in rest if line and not line.startswith("#"))
        return cls(path, first[2:].strip(), lines, sources[0] if sources else None)


def read_rows(folder: pathlib.Path) -> dict[str, Row]:
    """{name: row} of a folder of flagfiles, the base first, then by name. Raises DataError."""
    paths = {path.stem: path for path in sorted(folder.glob("*.flags"))}
    if BASE not in paths:
        raise DataError(f"{folder}: holds no {BASE}.flags, which all rows start from")
    rows = {name: Row.read(paths[name]) for name in [BASE, *(name for name in paths if name != BASE)]}
    for row in rows.values():
        source = row.weights_from
        if source is not None and (source not in rows or rows[source].weights_from or source == BASE):
            raise DataError(
                f"{row.path}: 'weights from {source}': must be another row in {folder}, not {BASE}, that "
                "starts from nothing itself"
            )
    return rows


class Runner:
    """Trains and evaluates into `folder`; may be killed at any instant, and run by several at a time.

    A (row, seed) is held by a file lock that the commands inherit: who comes while one is still under way,
    left over by a runner that was killed, waits for it.
    """

    def __init__(
        self, folder: pathlib.Path, data_dir: str, rows: dict[str, Row], robustness_images: int
    ) -> None:
        self._folder, self._data_dir, self._rows = folder, data_dir, rows
        self._robustness_images = robustness_images
        self._data_sha256 = manifest.load(data_dir).source
        self._children: set[subprocess.Popen] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def finished(self, name: str, seed: int) -> dict | None:
        """The result, if there is one. Raises DataError when it was made of other flags or data."""
        path = self._folder / name / f"seed-{seed}.json"
        if not path.exists():
            return None
        result = json.loads(path.read_text("utf-8"))
        now = self._settings(name)
        for key in now:
            if result["settings"].get(key) != now[key]:
                raise DataError(
                    f"{path}: was made with other {key}; delete {path.parent}, or give another --runs_dir"
                )
        return result

    def result(self, name: str, seed: int) -> dict:
        """Trains and evaluates, unless that is done already."""
        row, weights = self._rows[name], ()
        if row.weights_from is not None:
            weights = (f"--weights={self._train(row.weights_from, seed) / 'best.keras'}",)
        with self._held(name, seed) as lock:
            if result := self.finished(name, seed):
                return result
            task = self._trained(name, seed, lock, weights)
            result = {"row": name, "seed": seed, "settings": self._settings(name)}
            result |= self._training_figures(name, seed) | self._evaluate(name, seed, task.name, lock)
            with published(self._folder / name / f"seed-{seed}.json") as file:
                json.dump(result, file, indent=1)
            return result

    def stop(self) -> None:
        """Ends what is under way; training keeps its state."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.terminate()

    def _train(self, name: str, seed: int) -> pathlib.Path:
        with self._held(name, seed) as lock:
            return self._trained(name, seed, lock)

    def _trained(self, name: str, seed: int, lock: int, weights: tuple[str, ...] = ()) -> pathlib.Path:
        """Trains, unless that is done; the folder of the one task's models."""
        workdir = self._folder / name / f"seed-{seed}"
        done = workdir.with_suffix(".trained")
        if not done.exists():
            whole = not workdir.exists()
            bases = [self._rows[BASE]] if name == BASE else [self._rows[BASE], self._rows[name]]
            seconds = self._command(
                workdir.with_suffix(".log"), lock, TRAIN,
                *(f"--flagfile={row.path}" for row in bases),
                f"--data_dir={self._data_dir}", f"--workdir={workdir}", f"--seed={seed}", *weights,
            )  # fmt: skip
            with published(done) as file:
                json.dump({"processor_seconds": round(seconds, 1) if whole else None}, file)
        tasks = [path.parent for path in workdir.glob("*/best.keras")]
        if len(tasks) != 1:
            raise DataError(f"{workdir}: {len(tasks)} tasks were trained; a row is about one: --tasks=AXIS")
        return tasks[0]

    def _training_figures(self, name: str, seed: int) -> dict:
        workdir = self._folder / name / f"seed-{seed}"
        with (workdir / "history.csv").open(newline="") as file:
            epochs = [int(line["epoch"]) for line in csv.DictReader(file)]
        return {"epochs": epochs[-1]} | json.loads(workdir.with_suffix(".trained").read_text("utf-8"))

    def _evaluate(self, name: str, seed: int, task: str, lock: int) -> dict:
        workdir = self._folder / name / f"seed-{seed}"
        last = sorted(workdir.glob(f"{task}/epoch-*.keras"))[-1].stem
        self._command(
            workdir.with_suffix(".log"), lock, EVALUATE, f"--workdir={workdir}",
            f"--data_dir={self._data_dir}", f"--model={last}", "--bootstrap=0", "--duplicates=none",
            "--robustness", f"--robustness_images={self._robustness_images}",
        )  # fmt: skip
        document = json.loads((workdir / "evaluation/validation/metrics.json").read_text("utf-8"))
        figures = document["tasks"][task]
        return {
            "task": task,
            "images": figures["overall"]["images"],
            "accuracy": figures["overall"]["accuracy"],
            "auc": figures["overall"]["auc"],
            "robustness_images": figures["robustness"]["images"],
            "robustness": {
                kind: {
                    str(point["level"]): point["accuracy"] for point in points if point["level"] is not None
                }
                for kind, points in figures["robustness"]["kinds"].items()
            },
            "versions": document["about"]["versions"],
        }

    def _settings(self, name: str) -> dict:
        """What a result must have been made with to be kept."""
        row = self._rows[name]
        source = [*self._rows[row.weights_from].lines] if row.weights_from else None
        return {
            "flags": [*self._rows[BASE].lines, *(row.lines if name != BASE else ())],
            "flags of its weights": source,
            "data": self._data_sha256,
            "robustness_images": self._robustness_images,
        }

    @contextlib.contextmanager
    def _held(self, name: str, seed: int) -> Iterator[int]:
        """Waits for whoever works on it; the file descriptor of the lock.

        Children inherit it and keep the lock after a kill of this process; filelock's descriptor is private.
        """
        path = self._folder / name / f"seed-{seed}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()

    def _command(self, log: pathlib.Path, lock: int, module: str, *words: str) -> float:
        """Runs a command of ours, which holds the lock too; seconds of processor time."""
        with log.open("a") as output:
            with self._lock:
                if self._stopped:
                    raise DataError("stopped")
                child = subprocess.Popen(
                    [sys.executable, "-m", module, *words], stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, pass_fds=[lock], env=os.environ | _ONE_THREAD,
                )  # fmt: skip
                self._children.add(child)
            _, status, usage = os.wait4(child.pid, 0)
            with self._lock:
                child.returncode = os.waitstatus_to_exitcode(status)
                self._children.discard(child)
        if child.returncode:
            lines = log.read_text("utf-8", errors="replace").strip().splitlines()
            raise DataError(f"{module} ended with code {child.returncode}: {lines[-1]}; see {log}")
        return usage.ru_utime + usage.ru_stime
