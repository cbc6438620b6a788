import io
import os
import pathlib
import resource
import signal
import subprocess
import sys

import pytest
from absl import flags

from tfrecords_tools import cli, progress
from tfrecords_tools.errors import DataError, UsageError

FLAGS = flags.FlagValues()
flags.DEFINE_integer("count", 3, "How many.", flag_values=FLAGS)


def run(main, *words: str) -> int:
    FLAGS.unparse_flags()
    FLAGS["count"].unparse()
    return cli.run(main, FLAGS, name="tool", argv=["tool", *words])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("a.jpg: damaged; mend it"), 1, "tool: a.jpg: damaged; mend it\n"),
        (UsageError("--count is 1 to 9"), 2, "tool: --count is 1 to 9\nSee python -m tool --help\n"),
        (PermissionError(13, "Permission denied", "/data/x"), 1, "tool: /data/x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted\n"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(capsys, error, code, said):
    def main(options):
        raise error

    assert run(main) == code
    assert capsys.readouterr().err == said


def test_flags_are_parsed_and_faults_in_them_are_usage(capsys):
    seen = []
    assert run(lambda options: seen.append(options.count), "--count=7") == 0
    assert seen == [7]
    for words in (["--count=x"], ["--cuont=7"], ["stray"]):
        assert run(lambda options: seen.append(options.count), *words) == 2
        assert "See python -m tool --help" in capsys.readouterr().err
    assert seen == [7]


def test_flagfiles_are_read(tmp_path):
    (tmp_path / "run.flags").write_text("# a comment\n--count=8\n")
    seen = []
    assert run(lambda options: seen.append(options.count), f"--flagfile={tmp_path}/run.flags") == 0
    assert seen == [8]


def help_of(flag_values, **groups) -> str:
    return cli.help_text(run, flag_values, "tool", groups.get("usual", {}), groups.get("further", {}))


def test_help_has_groups_in_80_columns_and_defaults_as_typed():
    some = flags.FlagValues()
    flags.DEFINE_float("rate", 0.001, "Peak learning rate. " * 9, flag_values=some)
    flags.DEFINE_enum("fit", "crop", ["crop", "pad"], "How images are resized.", flag_values=some)
    flags.DEFINE_boolean("dry_run", False, "Write nothing.", flag_values=some)
    flags.DEFINE_multi_string("head", ["avg", "max"], "Layers.", flag_values=some)
    flags.DEFINE_string("name", None, "Name.", flag_values=some)
    flags.DEFINE_alias("old_name", "name", flag_values=some)
    groups = {
        "usual": {"Model": ("head", "rate"), "Data": ("fit",)},
        "further": {"Data": ("dry_run", "name")},
    }
    text = help_of(some, **groups)
    assert max(map(len, text.splitlines())) <= 80
    assert text.index("Model:") < text.index("--head") < text.index("--rate") < text.index("Data:")
    assert "--fit=crop|pad\n      How images are resized. (default: crop)" in text
    assert "      Layers. (default: avg,max)" in text
    assert "(default: 0.001)" in text
    assert "--[no]dry_run" not in text and "--helpfull" in text
    full = cli.help_text(run, some, "tool", groups["usual"], groups["further"], full=True)
    assert "--[no]dry_run\n      Write nothing. (default: false)" in full
    assert "--name=VALUE\n      Name.\n" in full
    assert "old_name" not in full


def test_a_flag_in_no_group_is_an_error():
    with pytest.raises(KeyError, match="in no group of its --help: count"):
        help_of(FLAGS, usual={"Data": ()})


COMMANDS = [
    "tfrecords_tools.convert",
    "tfrecords_tools.verify",
    "tfrecords_tools.inspect",
    "deepduel.train",
    "deepduel.evaluate",
    "deepduel.predict",
    "deepduel.compare",
    "deepduel.export",
    "deepduel.profile_input",
    "deepduel.quickstart",
    "deepduel.toy_images",
]


@pytest.mark.parametrize("word", ["--help", "--helpfull"])
@pytest.mark.parametrize("module", COMMANDS)
def test_help_fits_80_columns_and_imports_no_tensorflow(module, word):
    code = (
        "import importlib, sys\n"
        f"module = importlib.import_module({module!r})\n"
        "from tfrecords_tools import cli\n"
        f"sys.argv = ['x', {word!r}]\n"
        "entry = getattr(module, 'entry', None)\n"
        f"code = entry() if entry else cli.run(module.main, module.FLAGS, name={module!r})\n"
        "assert code == 0 and not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dir=VALUE" in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_importing_the_packages_imports_no_tensorflow():
    code = "import sys, deepduel, tfrecords_tools; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def clocked(**options) -> tuple[progress.Progress, list[float], io.StringIO]:
    now, stream = [0.0], io.StringIO()
    return progress.Progress("working", stream=stream, clock=lambda: now[0], **options), now, stream


def test_progress_of_less_than_two_seconds_says_nothing():
    bar, now, stream = clocked(total=10)
    with bar:
        for done in range(10):
            now[0] += 0.19
            bar.update(done)
    assert stream.getvalue() == ""


def test_progress_in_a_file_is_a_line_every_five_seconds():
    bar, now, stream = clocked(total=100)
    with bar:
        for done in range(1, 101):
            now[0] += 0.1
            bar.update(done, "1 rejected")
    assert stream.getvalue().splitlines() == [
        "working: 20 of 100 images, 10.0/s, 8 s left, 1 rejected",
        "working: 71 of 100 images, 10/s, 3 s left, 1 rejected",
        "working: 100 of 100 images, 10/s, 1 rejected",
    ]


def test_progress_of_unknown_length_and_after_a_resume():
    bar, now, stream = clocked(unit="files")
    with bar:
        now[0] = 4.0
        bar.update(2_000)
    assert stream.getvalue() == "working: 2,000 files, 500/s\n"
    bar, now, stream = clocked(total=1_000)
    bar.start_from(600)
    now[0] = 10.0
    bar.update(800)
    assert stream.getvalue() == "working: 800 of 1,000 images, 20/s, 10 s left\n"


def test_progress_in_a_terminal_is_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream, now = Terminal(), [0.0]
    with progress.Progress("working", total=10, stream=stream, clock=lambda: now[0]) as bar:
        now[0] = 3.0
        bar.update(5, "2 rejected")
    assert "working:  50%" in stream.getvalue() and "2 rejected" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7_260, "2 h 01 min")]
)
def test_durations(seconds, said):
    assert progress.duration(seconds) == said


def test_an_interrupt_while_a_command_is_still_importing_is_one_line(tmp_path):
    (tmp_path / "simplejpeg.py").write_text("raise KeyboardInterrupt\n")
    root = pathlib.Path(cli.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "tfrecords_tools.convert"], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("interrupted\n", -signal.SIGINT)


_STARTED = """
import gc, resource, sys, time
from absl import flags
from tfrecords_tools import cli
cli.run(lambda _: cli.quiet_tensorflow(), flags.FlagValues(), name="command", argv=["command"])
import tensorflow as tf
import deepduel.prediction.predictor, deepduel.prediction.sources, deepduel.runs.training_run
print(sorted({"IPython", "keras_cv", "matplotlib", "pandas", "sklearn"} & sys.modules.keys()))
print(gc.isenabled() and gc.get_freeze_count() > 100_000)
import sklearn.base, matplotlib
zeros = tf.zeros([64, 512, 512], tf.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    large = tf.cast(zeros, tf.float32)  # 67 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(time.process_time())
"""


@pytest.mark.slow
def test_tensorflow_starts_without_needless_packages_keeps_its_memory_and_ends_at_once():
    """On a processor on which oneDNN's operations, whose allocator keeps memory, are off by default."""
    root = str(pathlib.Path(cli.__file__).parents[1])
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONPATH": root}
    seconds_before = _seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-c", _STARTED], capture_output=True, text=True, check=True, env=environment
    )
    needless, settled, faults, seconds = done.stdout.splitlines()
    assert (needless, settled) == ("[]", "True")
    assert int(faults) < 4 * 67_000_000 // 4096  # otherwise 20 times
    assert _seconds_of_children() - seconds_before - float(seconds) < 0.7  # otherwise 1.3


@pytest.mark.slow
def test_in_a_program_of_its_user_keras_finds_its_optional_packages():
    """A notebook that predicts first may still give its tables to Keras, and plot."""
    program = """
import gc
from tfrecords_tools import cli
cli.quiet_tensorflow()
from keras.src.wrappers import sklearn_wrapper
print(sklearn_wrapper.sklearn is not None, gc.isenabled(), gc.get_freeze_count() < 1000)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True True True\n"


def _seconds_of_children() -> float:
    """Processor time of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("error, shown", [(ImportError, "chatter"), (KeyboardInterrupt, "")])
def test_what_tensorflow_logs_is_shown_where_it_fails_to_start(monkeypatch, capfd, error, shown):
    def start(devices: bool) -> None:
        os.write(2, b"chatter")
        raise error

    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")  # so that what is set below is undone
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    monkeypatch.setattr(cli, "_start_tensorflow", start)
    with pytest.raises(error):
        cli.quiet_tensorflow()
    assert capfd.readouterr().err == f"starting TensorFlow\n{shown}"


def test_the_memory_of_a_gpu_is_taken_as_needed_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # started by somebody else
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    cli.quiet_tensorflow()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    cli.quiet_tensorflow()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "false"


def test_hidden_packages_cannot_be_imported_meanwhile_and_can_be_afterwards():
    sys.modules.pop("colorsys", None)
    with cli._hidden("colorsys", "json"):
        import json  # noqa: F401  was imported already

        with pytest.raises(ImportError):
            import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("program", "typed", "expected"),
    [
        (
            "deepduel train",
            ["/env/bin/python", "/env/bin/deepduel", "train"],
            "deepduel evaluate '--run=a b'",
        ),
        (
            "deepduel train",
            ["python3", "-m", "deepduel", "train"],
            "python3 -m deepduel evaluate '--run=a b'",
        ),
        (
            "/src/deepduel/train.py",
            ["python3", "-W", "ignore", "-m", "deepduel.train"],
            "python3 -W ignore -m deepduel.evaluate '--run=a b'",
        ),
        ("x/pytest.py", ["python", "-m", "pytest"], "python -m deepduel.evaluate '--run=a b'"),
        ("notebook.py", ["python", "notebook.py", "-m"], "python -m deepduel.evaluate '--run=a b'"),
    ],
)
def test_the_next_command_has_the_form_in_which_this_one_was_typed(monkeypatch, program, typed, expected):
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", typed)
    assert cli.command_line("deepduel.evaluate", ["--run=a b"]) == expected
