"""Stands in for deepduel.train and deepduel.evaluate where only their order and files matter: no TensorFlow.

FAKE_PLAN in the environment names a folder: `calls` gets a line per command; training waits for the file
`go` there, and fails while another training of the same run is alive, or when the row's flags say --fail.
"""

import fcntl
import json
import os
import pathlib
import sys
import time


def main() -> None:
    words = sys.argv[1:]
    flag_values = dict(word[2:].partition("=")[::2] for word in words)
    workdir, plan = pathlib.Path(flag_values["workdir"]), pathlib.Path(os.environ["FAKE_PLAN"])
    kind = "evaluate" if "robustness" in flag_values else "train"
    with (plan / "calls").open("a") as file:
        file.write(f"{kind} {workdir.parent.name} {workdir.name} {flag_values.get('weights', '')}\n")
    if kind == "evaluate":
        _evaluate(workdir)
        return
    texts = [pathlib.Path(word.partition("=")[2]).read_text() for word in words if "--flagfile" in word]
    if "--fail" in texts[-1]:
        sys.exit("no such flag: fail")
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "alive").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        while not (plan / "go").exists():
            time.sleep(0.01)
        (workdir / "task").mkdir(exist_ok=True)
        for name in ("best", "epoch-01", "epoch-02"):
            (workdir / "task" / f"{name}.keras").touch()
        (workdir / "history.csv").write_text("epoch,seconds\n1,3\n2,3\n")


def _evaluate(workdir: pathlib.Path) -> None:
    """Accuracy 80 % and 2 points a seed, 1 more and nothing a seed for another row than the base."""
    seed = int(workdir.name.removeprefix("seed-"))
    accuracy = 0.8 + 0.02 * seed if workdir.parent.name == "base" else 0.83
    curve = lambda *levels: [{"level": level, "accuracy": 0.7} for level in (None, *levels)]
    task = {
        "overall": {"images": 1234, "accuracy": accuracy, "auc": 0.9},
        "robustness": {"images": 50, "kinds": {"jpeg": curve(95, 50), "blur": curve(1.0)}},
    }
    folder = workdir / "evaluation/validation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"tasks": {"task": task}, "about": {"versions": {}}}))


if __name__ == "__main__":
    main()
