"""Starts Python processes that work for this one.

Not by `multiprocessing`: that imports the user's main module anew, which runs a script without a
`__main__` guard again and fails in `python -`, and refuses to start children of a daemonic process.
"""

import json
import multiprocessing.spawn
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_PACKAGES = [str(pathlib.Path(__file__).parents[1])]
_PROGRAM = """
import importlib, json, sys
path, module, function, arguments = json.loads(sys.argv[1])
sys.path[:] = path
getattr(importlib.import_module(module), function)(*arguments)
"""


def start(module: str, function: str, arguments: Sequence[Any], files: Sequence[int]) -> subprocess.Popen:
    """Starts a process that calls `module.function(*arguments)`.

    It has no stdin and no stdout, and Ctrl-C in the terminal does not reach it.

    Args:
      arguments: values that JSON can represent.
      files: descriptors that it inherits, by the same numbers.

    Raises:
      OSError: the system cannot start a process.
    """
    path = [*(entry for entry in sys.path if isinstance(entry, str)), *_PACKAGES]
    return subprocess.Popen(
        [
            os.fsdecode(multiprocessing.spawn.get_executable()),
            "-P",
            "-c",
            _PROGRAM,
            json.dumps([path, module, function, arguments]),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # its threads would take memory and do nothing
        pass_fds=files,
        process_group=0,
    )
