"""From a folder of images to a trained and evaluated classifier, in one command.

    python -m deepduel.fit IMAGES

It converts the images to OUTPUT/shards, trains in OUTPUT/run-01, evaluates, and
prints the accuracy, the report and the command that predicts a picture. OUTPUT
is IMAGES.deepduel by default. After an interruption the same command resumes.
When there are new images in IMAGES, it appends them and continues training in
the next folder, OUTPUT/run-02, from the models of the one before.

The flags of deepduel.train may be given too, except for those of a cluster.
"""

import copy
import functools
import json
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from absl import flags

import deepduel.evaluate as evaluate
import deepduel.train as train
from deepduel import presets
from deepduel.callable_module import make_callable
from deepduel.networks.run_card import RunCard
from deepduel.runs import train_flags
from tfrecords_tools import cli, convert, regular_files
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest, storage
from tfrecords_tools.progress import counted
from tfrecords_tools.sources import opening
from tfrecords_tools.writing import planning

FLAGS = flags.FlagValues()
WORDS = "images"  # the flag of a word without a name
_OWN = ("images", "output")
# Flags of deepduel.train that follow from --output, or are for several processes: each of them would convert.
_WITHOUT = ("data_dir", "workdir", "cluster", "worker")
# Flags of the commands whose values follow from a flag of this one, which errors name instead.
_OWN_NAMES = {"input_dir": "images", "output_dir": "output", "data_dir": "output", "workdir": "output"}
_FLAG = re.compile(r"(?<![\w-])--([a-z]\w*)")
_COMMAND = re.compile(r"\S*python\S* -m |\bdeepduel [a-z_]+ --")
flags.DEFINE_string(
    "images", None, "Folder of images; it may be written without the flag's name.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output",
    None,
    "Folder for shards, models and report; by default --images followed by .deepduel.",
    flag_values=FLAGS,
)
for _name in train.FLAGS:
    if _name not in _WITHOUT and train.FLAGS[_name].name == _name:
        FLAGS[_name] = copy.deepcopy(train.FLAGS[_name])


def _groups(groups: cli.Groups) -> dict[str, tuple[str, ...]]:
    return {heading: tuple(name for name in names if name in FLAGS) for heading, names in groups.items()}


USUAL = {"Images and results": _OWN} | _groups(train_flags.USUAL)
FURTHER = _groups(train_flags.FURTHER)


def main(options: flags.FlagValues, typed: str | None = None) -> int:
    """Runs the commands one after the other, and returns the exit code. `typed`: see `train.main`."""
    return fitted(options, typed)[0]


def fitted(options: flags.FlagValues, typed: str | None = None) -> tuple[int, pathlib.Path]:
    """(exit code, the run's folder), after the commands have run one after the other."""
    if not options.images:
        raise UsageError("needs a folder of images: deepduel fit IMAGES")
    images = options.images.rstrip("/")
    output = pathlib.Path(options.output or _default_output(images))
    shards = output / "shards"
    _convert(images, shards)
    workdir, words = _run(output, manifest.load(shards))
    further_flags = [
        word
        for name in options
        if name not in _OWN and options[name].present
        for word in options[name].serialize().splitlines()
    ]
    code = _call(train, f"--data_dir={shards}", f"--workdir={workdir}", *words, *further_flags, typed=typed)
    if code or options.dry_run or options.find_learning_rate or not _has_models(workdir):
        return code, workdir
    _call(evaluate, f"--workdir={workdir}", f"--data_dir={shards}")
    _print_result(workdir, images)
    return 0, workdir


def _default_output(images: str) -> str:
    """IMAGES.deepduel for a folder or an archive; of other sources NAME.deepduel, in the current folder."""
    if storage.is_remote(images) or opening.describe(images).kind in opening.LABELLED:
        return f"{planning.clean_name(opening.default_name(images))}.deepduel"
    path = pathlib.PurePath(images.removeprefix("file://"))
    if path.name in ("", ".."):  # the current directory, or one above it
        path = pathlib.PurePath(os.path.abspath(path))  # noqa: PTH100, resolve() would follow links
    output = pathlib.Path(f"{path}.deepduel")
    if output.parent.is_dir() and not output.exists() and not os.access(output.parent, os.W_OK):
        raise UsageError(f"{output.parent} may not be written to; set --output to a folder for the results")
    return str(output)


def _convert(images: str, shards: pathlib.Path) -> None:
    """Converts the images, or appends the new ones to what is converted."""
    words = f"--input_dir={images}", f"--output_dir={shards}"
    if not (shards / manifest.FILE_NAME).is_file():
        _call(convert, *words)
        return
    try:
        _call(convert, *words, "--append")
    except DataError as error:  # a new class, for example
        raise DataError(f"{error}; to begin anew, set another --output than {shards.parent}") from error


def _run(output: pathlib.Path, data: manifest.Manifest) -> tuple[pathlib.Path, list[str]]:
    """(folder of the run to train, flags that resume it or begin it from the models of the run before)."""
    runs = {_number(path.parent): path.parent for path in output.glob("run-*/run.json")}
    newest = max(runs, default=0)
    if not newest:
        return output / "run-01", []
    last = runs[newest]
    if RunCard.load(last).data_source == data.source:
        own = last / "train.flags"
        return last, [f"--flagfile={own}", f"--workdir={last}"] if own.is_file() else []
    following = output / f"run-{newest + 1:02d}"
    words = [f"--flagfile={last}/train.flags", f"--workdir={following}"]
    if _has_models(last):
        words += [f"--start_from={last}", "--weights=auto"]
        flags_of_last = regular_files.read_text(last / "train.flags")
        words += ["--fine_tune=all"] * ("--backbone=small_cnn" in flags_of_last)
        print(f"new images since {last}: training continues from its models in {following}", flush=True)
    return following, words


def _number(run: pathlib.Path) -> int:
    """Of a run's folder, from 1; 0 for a folder of another name, such as run-01-old."""
    number = run.name.removeprefix("run-")
    return int(number) if number.isdecimal() else 0


def _has_models(run: pathlib.Path) -> bool:
    """Whether every task of a run has a model: it has finished an epoch."""
    return all((run / axis / "best.keras").is_file() for axis in RunCard.load(run).tasks)


def _call(module: ModuleType, *words: str, **arguments: Any) -> int:
    """Runs a command in this process, with further arguments of its `main`; its errors name flags of fit."""
    print(f"\n$ python -m {module.__name__} {shlex.join(words)}", flush=True)
    try:
        return module.main(cli.parsed(module.FLAGS, [module.__name__, *words]), **arguments) or 0
    except (UsageError, DataError) as error:
        raise type(error)(_explained(str(error), module, words)) from error


def _explained(message: str, module: ModuleType, words: Sequence[str]) -> str:
    """The message of a command's error, with what helps where it names flags that fit does not have.

    Command lines in it stay as they are.
    """
    start = _COMMAND.search(message)
    text, commands = (message[: start.start()], message[start.start() :]) if start else (message, "")
    missing = [
        f"--{name}"
        for name in dict.fromkeys(_FLAG.findall(text))
        if name in module.FLAGS and name not in FLAGS and name not in _OWN_NAMES
    ]
    message = _FLAG.sub(lambda flag: f"--{_OWN_NAMES.get(flag[1], flag[1])}", text) + commands
    if not missing:
        return message
    command = cli.command_line(module.__name__, words)
    rest = "; then run deepduel train and deepduel evaluate" * (module is convert)
    return f"{message}. deepduel fit does not have {' and '.join(missing)}: give it to {command}{rest}"


def _print_result(workdir: pathlib.Path, images: str) -> None:
    folder = workdir / "evaluation" / "validation"
    document = json.loads(regular_files.read_text(folder / "metrics.json"))
    print()
    for axis, task in document["tasks"].items():
        accuracy, count = task["overall"]["accuracy"], task["images"]
        print(
            f"{axis}: {accuracy:.2%} of {counted(count, 'validation image')} of {images} classified correctly"
        )
    print(f"report: {folder / 'report.html'}")
    print(f"predict: {cli.command_line('deepduel.predict', [f'--workdir={workdir}', 'PHOTO.jpg'])}")


def entry() -> int:
    """The command; returns its exit code."""
    typed = cli.command_line("deepduel.fit", sys.argv[1:])
    command = functools.wraps(main)(functools.partial(main, typed=typed))
    return cli.run(
        command, FLAGS, name="deepduel.fit", argv=presets.resolve(sys.argv),
        usual=USUAL, further=FURTHER, words=WORDS, usage="IMAGES",
    )  # fmt: skip


make_callable(__name__)

if __name__ == "__main__":
    sys.exit(entry())
