"""`deepduel`: its commands, its version, what it prints without arguments, and its completion scripts."""

import configparser
import pathlib
import shutil
import subprocess
import sys

import pytest

import deepduel
from deepduel import __main__, completion, subcommands
from tests.conftest import run_command

NEEDS_NOTHING = {"quickstart"}


def _deepduel(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["deepduel", *words])
    return __main__.entry()


def test_the_installed_command_is_the_modules_entry():
    config = configparser.ConfigParser()
    config.read(pathlib.Path(__file__).parents[2] / "setup.cfg")
    assert config["options.entry_points"]["console_scripts"].split() == [
        "deepduel",
        "=",
        "deepduel.__main__:entry",
    ]


def test_version_and_help(monkeypatch, capsys):
    assert _deepduel(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"deepduel {deepduel.__version__}\n"
    assert _deepduel(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert all(
        f"  {name} " in text and command.summary in text for name, command in subcommands.SUBCOMMANDS.items()
    )
    assert max(map(len, text.splitlines())) <= 80


def test_an_unknown_command_is_a_usage_error(monkeypatch, capsys):
    assert _deepduel(monkeypatch, "trian") == 2
    assert capsys.readouterr().err == (
        "deepduel: there is no command 'trian'; did you mean train?\nSee deepduel --help\n"
    )


@pytest.mark.parametrize("name", ["", *sorted(set(subcommands.SUBCOMMANDS) - NEEDS_NOTHING)])
def test_a_call_without_arguments_prints_three_lines_of_usage(name, monkeypatch, capsys):
    assert _deepduel(monkeypatch, *name.split()) == 2
    first, _, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"usage: deepduel {name}".rstrip())
    assert last == f"More: {f'deepduel {name}'.rstrip()} --help"


def test_a_subcommand_runs_with_its_flags_and_names_itself(monkeypatch, capsys, toy_shards):
    assert _deepduel(monkeypatch, "verify", f"--data_dir={toy_shards}", "--workers=1") == 0
    assert "sound, 240 images" in capsys.readouterr().out
    assert _deepduel(monkeypatch, "verify", "--nothing=1") == 2
    assert "See deepduel verify --help" in capsys.readouterr().err


def test_no_tensorflow_is_loaded_for_help():
    code = (
        "import sys\nfrom deepduel import __main__, subcommands\n"
        "for name in subcommands.SUBCOMMANDS:\n"
        "    sys.argv = ['deepduel', name, '--help']\n"
        "    assert __main__.entry() == 0, name\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_COMPLETE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
compopt() {{ :; }}
_deepduel
echo "${{COMPREPLY[@]}}"
"""


def _completed(script, *words: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    program = _COMPLETE.format(script=script, words=quoted, last=len(words) - 1)
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_flags_and_values(tmp_path, capsys, monkeypatch):
    assert run_command(completion, "bash") == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert _completed(script, "deepduel", "ev") == ["evaluate"]
    assert _completed(script, "deepduel", "train", "--learn") == ["--learning_rate="]
    assert _completed(script, "deepduel", "train", "--reader", "=", "s") == ["sequential"]
    assert _completed(script, "deepduel", "convert", "--fit", "=") == ["resize", "crop", "pad"]
    (tmp_path / "IMAGES").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _completed(script, "deepduel", "convert", "--input_dir", "=", "IM") == ["IMAGES"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_the_other_shells_name_every_command(shell, capsys):
    assert run_command(completion, shell) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in subcommands.SUBCOMMANDS)
    assert "bashcompinit" in text if shell == "zsh" else "complete -c deepduel" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


def test_another_shell_is_a_usage_error(capsys):
    assert run_command(completion, "tcsh") == 2
    assert "bash|zsh|fish" in capsys.readouterr().err
