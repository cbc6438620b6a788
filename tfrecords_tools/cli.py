"""Command lines: parsed flags in, exit code out.

Exit codes: 0 done, 1 the data or the run is bad (`DataError`: one clear line), 2 usage
(`UsageError` and whatever absl finds wrong in the flags), 3 another process of a distributed training is
missing or has ended (`PeerError`), 130 interrupted by Ctrl-C, 143 by SIGTERM.

Every command keeps its flags in a `flags.FlagValues()` of its own, so that several commands
can be imported into one process, and parses them before it imports TensorFlow, so that
`--help` and a mistyped flag answer at once.
"""

import atexit
import contextlib
import copy
import gc
import os
import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from tfrecords_tools import terminal
from tfrecords_tools.errors import DataError, PeerError, UsageError

_command = False  # whether this process runs one of the commands, and nothing of its user's own


def quiet_tensorflow(*, devices: bool = True, log_level: int = 2) -> None:
    """Imports TensorFlow and finds its devices, without the start-up chatter, and has it keep its memory.

    Args:
      devices: False leaves the devices to be configured, and be those of a cluster.
      log_level: what TensorFlow's C++ side logs: 2 for errors, 3 for none of those that Python raises too.

    TensorFlow's C++ side logs to file descriptor 2 before any level is in force. That is shown only when the
    import fails, or at once where the user has set TF_CPP_MIN_LOG_LEVEL.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # Takes of a GPU's memory what is needed, and not all of it: it counts until the GPU is first used.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "tensorflow" in sys.modules:
        return
    keep_memory()
    atexit.register(gc.freeze)  # else Python looks through all objects of TensorFlow before it ends: seconds
    print("starting TensorFlow", file=sys.stderr, flush=True)  # takes some seconds
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        _start_tensorflow(devices)
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = str(log_level)
    sys.stderr.flush()
    stderr_copy = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            _start_tensorflow(devices)
        except Exception:  # and not Ctrl-C
            log.seek(0)
            os.write(stderr_copy, log.read())
            raise
        finally:
            os.dup2(stderr_copy, 2)
            os.close(stderr_copy)


def keep_memory() -> None:
    """Has TensorFlow's CPU device reuse its memory instead of asking the system for it each time.

    Where oneDNN's operations are on by default (AVX512_VNNI, AMX), its allocator does so already. Elsewhere
    each tensor above 32 MB is mapped and paged in anew, half the time of an augmentation. The allocator's own
    limit would be 64 GB.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(-(-installed // 2**20)))


def _start_tensorflow(devices: bool) -> None:
    with contextlib.ExitStack() as stack:
        if _command:
            stack.enter_context(_hidden("IPython", "matplotlib", "pandas", "sklearn"))
            stack.enter_context(_uncollected())
        import tensorflow as tf  # imports Keras
    tf.config.list_physical_devices()  # this and the next line have messages of their own
    if devices:
        tf.constant(0)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """What the block makes stays: Python looks for garbage neither in the block nor later in what it made.

    The modules of TensorFlow are hundreds of thousands of objects, and looking through them again and again
    takes a fifth of their import.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Imports of these packages fail in the block, unless they are imported already.

    Keras imports them where they are installed, for wrappers, tables and plots that no command uses: up to
    1.6 seconds.
    """
    absent = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: not importable
    try:
        yield
    finally:
        for package in absent:
            del sys.modules[package]


_ADDED_BY_ABSL = re.compile(r"^<[^>]*>: |;\s*repeat this option to specify a list of values$")
PEER_LOST = 3  # exit code: another process of a distributed training is missing or has ended
_HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull", "-helpfull")
Groups = Mapping[str, Sequence[str]]  # heading in --help -> names of flags, in the order that they are shown


def run(
    main: Callable[[flags.FlagValues], int | None],
    flag_values: flags.FlagValues,
    *,
    name: str,
    argv: Sequence[str] | None = None,
    usual: Groups | None = None,
    further: Groups | None = None,
    words: str | None = None,
    usage: str | None = None,
) -> int:
    """Parses `argv` (default: sys.argv), calls `main(flag_values)`, returns the exit code.

    Args:
      main: the command; it may return an exit code. Its module's docstring is the head of `--help`.
      flag_values: the flags that the command defined.
      name: the command's name in messages, for example "deepduel.train".
      argv: the command line, program name first.
      usual: the flags that `--help` shows, by group. By default it shows all of them in one group.
      further: the flags that only `--helpfull` shows, by group.
      words: name of the flag to which words without `--` go, for example "images" in `predict a.jpg b.jpg`.
      usage: what a call needs, such as "--workdir=RUN"; it is printed where there is no argument.
    """
    global _command
    _command = True
    with terminal.guarded_streams():
        argv = list(sys.argv if argv is None else argv)
        program = argv[0] if argv[0].startswith("deepduel ") else f"python -m {name}"
        if usage and len(argv) == 1:
            return _print_usage(main, program, usage)
        if any(word in _HELP for word in argv[1:]):
            full = any(word.lstrip("-") == "helpfull" for word in argv[1:])
            groups = usual or {"Flags": [key for key in flag_values if key == flag_values[key].name]}
            print(help_text(main, flag_values, name, groups, further or {}, full=full))
            return 0
        try:
            return _run(main, flag_values, name, argv, words, program)
        except OSError as error:  # a full disk, a folder that may not be written: the system says it best
            place = f"{error.filename}: " if error.filename else ""
            return _say(name, f"{place}{error.strerror or error}", 1)


def _run(
    main: Callable,
    flag_values: flags.FlagValues,
    name: str,
    argv: list[str],
    words: str | None,
    program: str,
) -> int:
    try:
        parse(flag_values, argv, words=words)
        code = main(flag_values)
    except (flags.Error, UsageError) as error:
        return _say(name, f"{error}\nSee {program} --help", 2)
    except DataError as error:
        return _say(name, str(error), 1)
    except PeerError as error:
        return _say(name, str(error), PEER_LOST)
    except MemoryError as error:
        return _say(name, f"not enough memory ({error or 'for what the data require'})", 1)
    except KeyboardInterrupt:
        return _say(name, "interrupted", 130)
    return code or 0


def parsed(flag_values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagValues:
    """A copy of a command's flags, parsed from a command line for a call from Python. Raises as `parse`."""
    copied = flags.FlagValues()
    for name in flag_values:
        if name == flag_values[name].name:  # and no alias
            copied[name] = copy.deepcopy(flag_values[name])
    parse(copied, argv)
    return copied


def command_line(module: str, words: Sequence[str]) -> str:
    """A command to be typed next, in the form in which this one was typed, quoted for the shell.

    Args:
      module: of the command, such as "deepduel.train".
      words: its arguments.

    Returns:
      "deepduel train …" after `deepduel`, "python3 -m deepduel train …" after `python3 -m deepduel`, and
      "python -m deepduel.train …" after `python -m` with any command's module, and in a library.
    """
    typed = sys.orig_argv
    at = typed.index("-m") if "-m" in typed[:-1] else None
    is_ours = at is not None and re.match(r"(deepduel|tfrecords_tools)\b", typed[at + 1])
    python = typed[: at + 1] if at is not None and is_ours else ["python", "-m"]
    if not sys.argv[0].startswith("deepduel "):  # which deepduel.__main__ sets
        command = [*python, module]
    else:
        command = [*(python if is_ours else []), "deepduel", module.rpartition(".")[2]]
    return shlex.join([*command, *words])


def parse(flag_values: flags.FlagValues, argv: Sequence[str], *, words: str | None = None) -> None:
    """Parses a command line, program name first. Words without `--` go to the flag `words`.

    Raises:
      UsageError: there are such words, and the command takes none, or only one.
      flags.Error: a flag does not exist, or its value is wrong.
    """
    flag_values.set_gnu_getopt(True)  # words may stand before flags
    rest = flag_values(list(argv))[1:]
    if not rest:
        return
    if words is None:
        raise UsageError(f"does not take the argument {rest[0]!r}; flags are written --flag=value")
    flag = flag_values[words]
    if not isinstance(flag, flags.MultiFlag):
        if flag.present or len(rest) > 1:
            values = [*[str(flag.value)] * flag.present, *rest]
            raise UsageError(f"takes a single value of --{words}, got {' '.join(values)}")
        flag.parse(rest[0])
        return
    for word in rest:
        flag.parse(word)


def _print_usage(main: Callable, program: str, usage: str) -> int:
    summary = (sys.modules[main.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    print(f"usage: {program} {usage} [--flag=value …]\n{summary}\nMore: {program} --help", file=sys.stderr)
    return 2


def _say(name: str, message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"{name}: {message}", file=sys.stderr)
    return code


def help_text(
    main: Callable,
    flag_values: flags.FlagValues,
    name: str,
    usual: Groups,
    further: Groups,
    *,
    full: bool = False,
) -> str:
    """What `--help` prints, or `--helpfull` with `full`, in 80 columns.

    Every flag must be in one group of `usual` or `further`: KeyError names those that are not.
    """
    grouped = [key for groups in (usual, further) for keys in groups.values() for key in keys]
    missing = [key for key in flag_values if key not in grouped and not _is_alias(flag_values[key])]
    if missing:
        raise KeyError(f"flags of {name} in no group of its --help: {', '.join(missing)}")
    lines = [(sys.modules[main.__module__].__doc__ or "").strip()]
    for heading in dict.fromkeys([*usual, *(further if full else ())]):
        keys = [*usual.get(heading, ()), *(further.get(heading, ()) if full else ())]
        lines += ["", f"{heading}:"]
        for key in keys:
            lines += _flag_lines(flag_values[key])
    lines += ["", "  --flagfile=FILE"]
    lines += _wrapped("Read further flags from FILE, one per line; lines that begin with # are comments.")
    if further and not full:
        lines += ["", f"All flags: python -m {name} --helpfull"]
    return "\n".join(lines)


def _is_alias(flag: flags.Flag) -> bool:
    return (flag.help or "").startswith("Alias for --")


def _flag_lines(flag: flags.Flag) -> Iterator[str]:
    choices = getattr(flag.parser, "enum_values", None)
    value = "" if flag.boolean else f"={'|'.join(choices) if choices else 'VALUE'}"
    yield f"  --{'[no]' if flag.boolean else ''}{flag.name}{value}"
    default = _typed(flag.default)
    text = _ADDED_BY_ABSL.sub("", flag.help or "")
    yield from _wrapped(f"{text}{f' (default: {default})' if default else ''}")


def _typed(default: Any) -> str:
    """A default as one would type it; "" where there is none."""
    if default is None or default == "" or default == []:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return ",".join(_typed(part) for part in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _wrapped(text: str) -> list[str]:
    indent = 6 * " "
    return textwrap.wrap(
        text, 80, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
