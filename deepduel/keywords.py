"""Keyword arguments of Python calls -> the flags of a command, so that both have the same options and checks.

    train(…, epochs=5, tasks=["category"], backbone={"category": "xception"})
    --epochs=5 --tasks=category --backbone=category=xception

Public functions hand these flags to the command's own `main`; what it raises names arguments, not flags.
"""

import contextlib
import csv
import difflib
import inspect
import io
import numbers
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

from absl import flags

from deepduel import presets
from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError

FLAGFILE = "flagfile"
_FLAG = re.compile(r"(?<![\w-])--(?=[a-z])")
_Function = TypeVar("_Function", bound=Callable)


def parsed(
    command: ModuleType, options: Mapping[str, Any], *, function: str, names: Collection[str]
) -> flags.FlagValues:
    """The parsed flags of a command.

    Args:
      command: its module, with `FLAGS`.
      options: {flag: value}; None stands for the default. Flags that may be repeated take lists, and those of
        a task {task: value} too.
      function: the name of the function that was called, for errors.
      names: the options that it takes.

    Raises:
      TypeError: there is no such option; names the ones with similar names.
      UsageError: a value is wrong.
    """
    words = []
    for name, value in options.items():
        if name not in names:
            raise TypeError(
                f"{function}() got an unexpected keyword argument {name!r}{_similar(name, names)}"
            )
        words += [f"--{name}={text}" for text in _texts(command.FLAGS, name, value)]
    words.sort(key=lambda word: not word.startswith(f"--{FLAGFILE}="))  # the other options replace its values
    with errors():
        return cli.parsed(command.FLAGS, presets.resolve([command.__name__, *words]))


def option_names(command: ModuleType, *, without: Collection[str] = ()) -> list[str]:
    """The flags of a command, but the ones that its function takes by position."""
    own = [name for name in command.FLAGS if command.FLAGS[name].name == name]
    return [name for name in (*own, FLAGFILE) if name not in without]


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """A block whose errors speak of arguments where those of a command speak of flags."""
    try:
        yield
    except flags.Error as error:
        raise UsageError(_without_dashes(str(error))) from None
    except (UsageError, DataError) as error:
        text = _without_dashes(str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error


def documented(command: ModuleType, names: Collection[str]) -> Callable[[_Function], _Function]:
    """A decorator that gives a function with `**options` the signature that editors and `help` show."""

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)
        parameters = [
            part for part in signature.parameters.values() if part.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=command.FLAGS[name].default if name in command.FLAGS else None,
            )
            for name in names
        ]
        function.__signature__ = signature.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
        return function

    return decorate


def _texts(known: flags.FlagValues, name: str, value: Any) -> list[str]:
    """The values of a flag as one would type them, one for each time that it is written."""
    flag = None if name == FLAGFILE else known[name]
    if value is None:
        return []
    multiple = isinstance(flag, flags.MultiFlag)
    if isinstance(value, Mapping) and multiple:
        return [f"{task}={_text(name, part)}" for task, part in value.items()]
    if isinstance(value, list | tuple):
        texts = [_text(name, part) for part in value]
        if multiple or name == FLAGFILE:
            return texts
        return [_joined(texts) if isinstance(known[name].parser, flags.ListParser) else ",".join(texts)]
    return [_text(name, value)]


def _joined(texts: list[str]) -> str:
    """The value of a flag that takes a list, as absl reads it: a row of a CSV file."""
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(texts)
    return row.getvalue()


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str | numbers.Real):  # NumPy's numbers too
        return str(value)
    raise UsageError(f"{name} must be a string, a number or a boolean, got {type(value).__name__}: {value!r}")


def _similar(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else f"; it has {', '.join(sorted(names))}"


def _without_dashes(message: str) -> str:
    """A message without the dashes of flags; command lines in it keep theirs."""
    head, command, rest = message.partition("python -m ")
    return _FLAG.sub("", head) + command + rest
