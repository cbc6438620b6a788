"""The commands as Python functions, for notebooks and scripts: `deepduel.convert`, `train`, `fit` and `Run`.

They take the options of the commands as keyword arguments, raise `UsageError` and `DataError`, and never
end the process.
"""

import os
import pathlib
import signal
from typing import Any, Literal, overload

import deepduel.fit as fit_command
import deepduel.train as train_command
from deepduel import keywords
from deepduel.run import Run
from tfrecords_tools import convert as convert_command

__all__ = ["Run", "convert", "fit", "train"]

_OF_CONVERT = keywords.option_names(convert_command, without=("input_dir", "output_dir"))
_OF_TRAIN = keywords.option_names(train_command, without=("data_dir", "workdir"))
_OF_FIT = keywords.option_names(fit_command, without=("images", "output"))


@keywords.documented(convert_command, _OF_CONVERT)
def convert(input_dir: str | os.PathLike, output_dir: str | os.PathLike, **options: Any) -> pathlib.Path:
    """Converts a folder of images to shards, as `deepduel convert` does.

    Args:
      input_dir: folder of images, an archive of one, or another source that the command takes.
      output_dir: folder for the shards: new, empty, or of an interrupted conversion, which is resumed.
      **options: the flags of `deepduel convert`, such as split="train:0.8,validation:0.2".

    Returns:
      The folder of the shards.

    Raises:
      TypeError: there is no such option.
      UsageError, DataError: an option or the images are bad.

    Examples:
      >>> shards = deepduel.convert("IMAGES", "NEW_SHARDS", image_size=64)
    """
    own = {"input_dir": os.fspath(input_dir), "output_dir": os.fspath(output_dir)}
    values = keywords.parsed(convert_command, options | own, function="convert", names=(*_OF_CONVERT, *own))
    with keywords.errors():
        convert_command.main(values)
    return pathlib.Path(output_dir)


@overload
def train(
    data_dir: str | os.PathLike, workdir: str | os.PathLike, *, dry_run: Literal[True], **options: Any
) -> None: ...


@overload
def train(data_dir: str | os.PathLike, workdir: str | os.PathLike, **options: Any) -> Run: ...


@keywords.documented(train_command, _OF_TRAIN)
def train(data_dir: str | os.PathLike, workdir: str | os.PathLike, **options: Any) -> Run | None:
    """Trains a classifier for each label axis, as `deepduel train` does; the same call resumes the run.

    Ctrl-C, or "interrupt" in a notebook, saves the state before it raises KeyboardInterrupt.

    Args:
      data_dir: folder of shards.
      workdir: folder of the run.
      **options: the flags of `deepduel train`, such as epochs=5. Those of single tasks take a value for all
        tasks or {task: value}.

    Returns:
      The run; None with `dry_run` and `find_learning_rate`, which train nothing.

    Raises:
      TypeError: there is no such option.
      UsageError, DataError: an option or the data are bad.
      KeyboardInterrupt: it was interrupted, and the state is saved.

    Examples:
      >>> run = deepduel.train("SHARDS", "NEW_RUN", epochs=5, backbone="small_cnn")
    """
    own = {"data_dir": os.fspath(data_dir), "workdir": os.fspath(workdir)}
    values = keywords.parsed(train_command, options | own, function="train", names=(*_OF_TRAIN, *own))
    with keywords.errors():
        _pass_on(train_command.main(values))
    return None if values.dry_run or values.find_learning_rate else Run(workdir)


@overload
def fit(
    images: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    dry_run: Literal[True],
    **options: Any,
) -> None: ...


@overload
def fit(images: str | os.PathLike, output: str | os.PathLike | None = None, **options: Any) -> Run: ...


@keywords.documented(fit_command, _OF_FIT)
def fit(images: str | os.PathLike, output: str | os.PathLike | None = None, **options: Any) -> Run | None:
    """Converts a folder of images, trains and evaluates, as `deepduel fit` does; the same call resumes.

    Args:
      images: folder of images, or another source that `deepduel convert` takes.
      output: folder for shards and runs; None for that of the images followed by ".deepduel".
      **options: the flags of `deepduel train`, such as epochs=5.

    Returns:
      The run; None with `dry_run` and `find_learning_rate`, which train nothing.

    Raises:
      TypeError: there is no such option.
      UsageError, DataError: an option or the images are bad.
      KeyboardInterrupt: it was interrupted, and the state is saved.

    Examples:
      >>> run = deepduel.fit("IMAGES")
      >>> run.predict("photo.jpg")
    """
    own = {"images": os.fspath(images), "output": None if output is None else os.fspath(output)}
    values = keywords.parsed(fit_command, options | own, function="fit", names=(*_OF_FIT, *own))
    with keywords.errors():
        code, workdir = fit_command.fitted(values)
        _pass_on(code)
    return None if values.dry_run or values.find_learning_rate else Run(workdir)


def _pass_on(code: int) -> None:
    """Raises the signal that ended training again, now that the state is saved.

    A process that a shell started in the background ignores SIGINT, so KeyboardInterrupt is raised here.
    """
    if code <= 128:
        return
    if code != 128 + signal.SIGINT:
        signal.raise_signal(code - 128)
    raise KeyboardInterrupt
