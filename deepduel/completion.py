"""Prints the completion script of a shell: commands, flags and their values.

    source <(deepduel completion bash)

Put the line into ~/.bashrc, or with zsh into ~/.zshrc. For fish:

    deepduel completion fish > ~/.config/fish/completions/deepduel.fish
"""

import sys
from collections.abc import Iterator

from absl import flags

from deepduel import subcommands
from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError

FLAGS = flags.FlagValues()
WORDS = "shell"  # the flag of a word without a name
flags.DEFINE_enum("shell", None, ["bash", "zsh", "fish"], "Shell to complete in.", flag_values=FLAGS)

_BASH = """\
_deepduel() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" flag="" words=""
    if [[ "$current" == "=" ]]; then
        flag="${{COMP_WORDS[COMP_CWORD-1]}}" current=""
    elif [[ $COMP_CWORD -gt 1 && "${{COMP_WORDS[COMP_CWORD-1]}}" == "=" ]]; then
        flag="${{COMP_WORDS[COMP_CWORD-2]}}"
    elif [[ "$current" == --*=* ]]; then
        flag="${{current%%=*}}" current="${{current#*=}}"
    fi
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$current"))
        return
    fi
    if [[ -n "$flag" ]]; then
        case "${{COMP_WORDS[1]}} $flag" in
{values}
        esac
        if [[ -n "$words" ]]; then
            COMPREPLY=($(compgen -W "$words" -- "$current"))
        else
            COMPREPLY=($(compgen -f -- "$current"))
        fi
        return
    fi
    if [[ "$current" != -* ]]; then
        COMPREPLY=($(compgen -f -- "$current"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{flags}
    esac
    COMPREPLY=($(compgen -W "$words --help --helpfull --flagfile=" -- "$current"))
    [[ "${{COMPREPLY[0]}}" == *= ]] && compopt -o nospace
}}
complete -o filenames -F _deepduel deepduel
"""


def main(options: flags.FlagValues) -> None:
    """Prints the script."""
    if options.shell is None:
        raise UsageError("--shell must be bash, zsh or fish")
    print("\n".join(_fish()) if options.shell == "fish" else _bash(options.shell), end="")


def _bash(shell: str) -> str:
    commands, values = [], []
    for name in subcommands.SUBCOMMANDS:
        words = []
        for flag in _flags(name):
            words.append(f"--{flag.name}" if flag.boolean else f"--{flag.name}=")
            if _choices(flag):
                values.append(f"            '{name} --{flag.name}') words='{' '.join(_choices(flag))}' ;;")
        commands.append(f"        {name}) words='{' '.join(words)}' ;;")
    script = _BASH.format(
        commands=" ".join(subcommands.SUBCOMMANDS), values="\n".join(values), flags="\n".join(commands)
    )
    return f"autoload -U +X bashcompinit && bashcompinit\n{script}" if shell == "zsh" else script


def _fish() -> Iterator[str]:
    for name, command in subcommands.SUBCOMMANDS.items():
        summary = command.summary.replace("'", "\\'")
        yield f"complete -c deepduel -n __fish_use_subcommand -a {name} -d '{summary}'"
        for flag in _flags(name):
            parts = [f"complete -c deepduel -n '__fish_seen_subcommand_from {name}' -l {flag.name}"]
            if not flag.boolean:
                parts.append("-r")
            if _choices(flag):
                parts.append(f"-f -a '{' '.join(_choices(flag))}'")
            yield " ".join(parts)
    yield ""


def _flags(name: str) -> list[flags.Flag]:
    values = subcommands.load(name).FLAGS
    return [values[key] for key in sorted(values) if values[key].name == key]


def _choices(flag: flags.Flag) -> list[str]:
    return list(getattr(flag.parser, "enum_values", None) or ())


def entry() -> int:
    """The command; returns its exit code."""
    return cli.run(main, FLAGS, name="deepduel.completion", words=WORDS, usage="bash|zsh|fish")


if __name__ == "__main__":
    sys.exit(entry())
