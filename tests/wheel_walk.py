"""From class folders to an answer with the installed package alone, without a flag but paths.

    PYTHON wheel_walk.py      in an empty folder, with the Python of an environment that has the package

One command, the three that it consists of, and the same in Python; each ends with a prediction.
`make test-wheel` runs it in a new environment.
"""

import pathlib
import shutil
import subprocess
import sys
import time

DEEPDUEL = pathlib.Path(sys.executable).parent / "deepduel"
CLASSES = {"animals", "human_faces", "vehicles"}
LONGEST_SECONDS = 600


def main() -> None:
    import deepduel

    assert "site-packages" in deepduel.__file__, f"not the installed package: {deepduel.__file__}"
    images, photo = class_folders(pathlib.Path("my images"))
    one_command(images, photo)
    three_commands(images, photo)
    in_python(images, photo)
    print("\nall three ways end with a prediction")


def class_folders(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """(folders with a class each, a picture that is in none of them)."""
    run("toy_images", "--output_dir=toys", "--count=150", "--size=32")
    for path in sorted(pathlib.Path("toys", "train").rglob("*.jpg")):
        target = folder / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / f"{path.parent.parent.name}-{path.name}")
    photo = sorted(pathlib.Path("toys", "validation").rglob("*.jpg"))[0]
    assert {path.name for path in folder.iterdir()} == CLASSES
    return folder, photo


def one_command(images: pathlib.Path, photo: pathlib.Path) -> None:
    started = time.monotonic()
    printed = run("fit", str(images))
    assert time.monotonic() - started < LONGEST_SECONDS
    workdir = pathlib.Path(f"{images}.deepduel", "run-01")
    assert f"report: {workdir}/evaluation/validation/report.html" in printed
    require_answer(run("predict", f"--workdir={workdir}", str(photo)))


def three_commands(images: pathlib.Path, photo: pathlib.Path) -> None:
    run("convert", f"--input_dir={images}", "--output_dir=shards")
    run("train", "--data_dir=shards", "--workdir=run")
    run("evaluate", "--workdir=run", "--data_dir=shards")
    assert pathlib.Path("run/evaluation/validation/report.html").is_file()
    require_answer(run("predict", "--workdir=run", str(photo)))


def in_python(images: pathlib.Path, photo: pathlib.Path) -> None:
    import deepduel

    trained = deepduel.fit(images, "from python")
    assert len(trained.history) > 1 and {row["category"] for row in trained.confusion()} == CLASSES
    (row,) = trained.predict(photo)
    assert row["class"] in CLASSES and 0 < row["confidence"] <= 1
    print(row)


def run(*words: str) -> str:
    """Runs a command of deepduel, shows what it prints, and returns it."""
    print("\n$ deepduel", *words, flush=True)
    done = subprocess.run([DEEPDUEL, *words], stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    assert done.returncode == 0, f"exit code {done.returncode}"
    return done.stdout


def require_answer(printed: str) -> None:
    line = printed.strip().splitlines()[-1]
    assert "category: " in line and any(name in line for name in CLASSES) and "%" in line, line


if __name__ == "__main__":
    main()
