"""Modules that may be called: `deepduel.train` is a command, `deepduel.train(…)` the function of that name.

A module's `__class__` may be assigned, see "Customizing module attribute access" in Python's reference.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module of `deepduel` whose call is that of the function of the same name in `deepduel.api`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function()(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function())

    def _function(self) -> Callable:
        api = importlib.import_module("deepduel.api")  # it imports the module that is called
        return getattr(api, self.__name__.rpartition(".")[2])


def make_callable(name: str) -> None:
    """Makes the module of this name callable, but not one that Python runs as the main program."""
    if name != "__main__":
        sys.modules[name].__class__ = CallableModule
