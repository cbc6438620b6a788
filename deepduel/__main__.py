"""The command `deepduel`, or `python -m deepduel`: `deepduel COMMAND --flag=value …` runs one command."""

import difflib
import sys

from deepduel import __version__, subcommands

_USAGE = "usage: deepduel COMMAND [--flag=value …]"


def entry() -> int:
    """Runs the command that the first word names, and returns its exit code."""
    words = sys.argv[1:]
    if not words:
        names = ", ".join(subcommands.SUBCOMMANDS)
        print(f"{_USAGE}\ncommands: {names}\nMore: deepduel --help", file=sys.stderr)
        return 2
    if words[0] == "--version":
        print(f"deepduel {__version__}")
        return 0
    if words[0] in ("--help", "-h", "-help", "help"):
        print(_help())
        return 0
    if words[0] not in subcommands.SUBCOMMANDS:
        close = difflib.get_close_matches(words[0], subcommands.SUBCOMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"deepduel: there is no command {words[0]!r}{hint}\nSee deepduel --help", file=sys.stderr)
        return 2
    sys.argv = [f"deepduel {words[0]}", *words[1:]]
    return subcommands.load(words[0]).entry()


def _help() -> str:
    width = max(map(len, subcommands.SUBCOMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in subcommands.SUBCOMMANDS.items()]
    return "\n".join(
        [
            "From folders of images to trained Keras image classifiers.",
            "",
            _USAGE,
            "",
            "Commands:",
            *lines,
            "",
            "deepduel COMMAND --help describes a command and its usual flags, --helpfull all",
            "of its flags, and deepduel --version prints the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(entry())
