"""Command lines: parsed flags in, exit code out.

Exit codes: 0 done, 1 the data or the run is bad (`DataError`: one clear line), 2 usage
(`UsageError` and whatever absl finds wrong in the flags), 130 interrupted.

Every command keeps its flags in a `flags.FlagValues()` of its own, so that several commands
can be imported into one process, and parses them before it imports TensorFlow, so that
`--help` and a mistyped flag answer at once.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence

from absl import flags

from tfrecords_tools.errors import DataError, UsageError


def quiet_tensorflow() -> None:
    """Imports TensorFlow and finds its devices, without the start-up chatter.

    TensorFlow's C++ side logs to file descriptor 2 before any level is in force, whatever
    TF_CPP_MIN_LOG_LEVEL says; what it prints in this window is held back, and shown only when
    the import fails. A user's own TF_CPP_MIN_LOG_LEVEL wins: then nothing is held back.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" in sys.modules:
        return
    print("starting TensorFlow", file=sys.stderr, flush=True)  # takes some seconds
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        _start_tensorflow()
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # errors are still shown
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            _start_tensorflow()
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _start_tensorflow() -> None:
    import tensorflow as tf

    tf.constant(0)  # creates the devices, which has messages of its own


def run(
    main: Callable[[flags.FlagValues], None],
    flag_values: flags.FlagValues,
    *,
    name: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parses `argv` (default: sys.argv), calls `main(flag_values)`, returns the exit code.

    Args:
      main: the command; its module's docstring is the head of `--help`.
      flag_values: the flags that the command defined.
      name: the command's name in messages, for example "deepduel.train".
      argv: the command line, program name first.
    """
    argv = list(sys.argv if argv is None else argv)
    try:
        return _run(main, flag_values, name, argv)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the system says it best
        place = f"{error.filename}: " if error.filename else ""
        return _say(name, f"{place}{error.strerror or error}", 1)


def _run(main: Callable, flag_values: flags.FlagValues, name: str, argv: list[str]) -> int:
    if any(word in ("--help", "-help", "-h", "--helpfull", "--helpshort") for word in argv[1:]):
        print(_help(main, flag_values, name), flush=True)
        return 0
    try:
        rest = flag_values(argv)[1:]
        if rest:
            raise UsageError(f"does not take the argument {rest[0]!r}; flags are written --flag=value")
        main(flag_values)
    except (flags.Error, UsageError) as error:
        return _say(name, f"{error}\nSee python -m {name} --help", 2)
    except DataError as error:
        return _say(name, str(error), 1)
    except KeyboardInterrupt:
        return _say(name, "interrupted", 130)
    return 0


def _say(name: str, message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"{name}: {message}", file=sys.stderr)
    return code


def _help(main: Callable, flag_values: flags.FlagValues, name: str) -> str:
    text = (sys.modules[main.__module__].__doc__ or "").strip()
    lines = [text, "", f"Flags of python -m {name}:"]
    for key in sorted(flag_values):
        flag = flag_values[key]
        if key != flag.name:
            continue
        default = "" if flag.default_as_str in (None, "None") else f" (default: {flag.default_as_str})"
        value = "" if flag.boolean else "=VALUE"
        lines += [f"  --{'[no]' if flag.boolean else ''}{key}{value}", f"      {flag.help}{default}"]
    lines += ["  --flagfile=FILE", "      Reads further flags from FILE, one a line; # starts a comment."]
    return "\n".join(lines)
