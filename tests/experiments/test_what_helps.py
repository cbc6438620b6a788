import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from deepduel import train
from deepduel.networks import task_model
from deepduel.runs import task_flags
from experiments import what_helps, what_helps_runs
from tests.conftest import run_command

ROWS = {
    "base": "# The base\n--backbone=small_cnn\n",
    "flip": "# Flips\n--horizontal_flip=true\n",
    "first": "# To start from\n--tasks=category\n",
    "frozen": "# Frozen\n# weights from first\n",
}
README = "before\n<!-- rows -->\nold\n<!-- /rows -->\nafter\n"
RUNNER = """
import sys
from experiments import what_helps, what_helps_runs
what_helps_runs.TRAIN = what_helps_runs.EVALUATE = "tests.helpers.fake_commands"
sys.exit(what_helps.entry())
"""


@pytest.fixture
def words(tmp_path, toy_shards, monkeypatch) -> list[str]:
    """Flags of a runner whose commands are the fake ones, at once done."""
    rows = tmp_path / "rows"
    rows.mkdir()
    for name, text in ROWS.items():
        (rows / f"{name}.flags").write_text(text)
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "go").touch()
    monkeypatch.setenv("FAKE_PLAN", str(tmp_path))
    monkeypatch.setattr(what_helps_runs, "TRAIN", "tests.helpers.fake_commands")
    monkeypatch.setattr(what_helps_runs, "EVALUATE", "tests.helpers.fake_commands")
    return [
        f"--data_dir={toy_shards}", f"--runs_dir={tmp_path}/runs", f"--rows={rows}", "--seeds=2", "--jobs=1",
        f"--readme={tmp_path}/README.md",
    ]  # fmt: skip


def calls(tmp_path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_the_table_pairs_seeds_and_stands_between_the_marks(tmp_path, words, capsys):
    assert run_command(what_helps, *words) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- rows -->\n| | flagfile | accuracy")
    assert text.endswith("<!-- /rows -->\nafter\n")
    assert "| The base | `base` | 81.00 ± 1.41 |  | 0.9000 ± 0.0000 | 70.0 ± 0.0 | 70.0 ± 0.0 |" in text
    assert "| Flips | `flip` | 83.00 ± 0.00 | +2.00 (+1.00 … +3.00) | 0.9000 ± 0.0000 |" in text
    assert "over 2 seeds, after 2 epochs" in text
    assert "1,234 validation images, 50 of them damaged" in text
    assert "To start from" not in text
    assert "old" not in text


def test_seeds_take_turns_and_weights_come_from_the_same_seed(tmp_path, words):
    assert run_command(what_helps, *words) == 0
    runs = tmp_path / "runs"
    turn = lambda seed: [
        f"train base seed-{seed} ",
        f"evaluate base seed-{seed} ",
        f"train flip seed-{seed} ",
        f"evaluate flip seed-{seed} ",
        f"train first seed-{seed} ",
        f"train frozen seed-{seed} {runs}/first/seed-{seed}/task/best.keras",
        f"evaluate frozen seed-{seed} ",
    ]
    assert calls(tmp_path) == turn(0) + turn(1)
    assert json.loads((runs / "flip/seed-1.json").read_text())["epochs"] == 2


def test_what_is_done_is_kept_whatever_was_lost(tmp_path, words):
    assert run_command(what_helps, *words) == 0
    whole = (tmp_path / "README.md").read_text()
    (tmp_path / "runs/flip/seed-1.json").unlink()
    (tmp_path / "calls").write_text("")
    assert run_command(what_helps, *words) == 0
    assert calls(tmp_path) == ["evaluate flip seed-1 "]
    assert (tmp_path / "README.md").read_text() == whole


def test_rows_without_all_seeds_are_named_and_left_out(tmp_path, words):
    assert run_command(what_helps, *words, "--only=base") == 0
    (tmp_path / "rows/base.flags").write_text("# Another title\n# a remark\n--backbone=small_cnn\n")
    assert run_command(what_helps, *words, "--jobs=0") == 0
    text = (tmp_path / "README.md").read_text()
    assert "| Another title |" in text
    assert "Not (or not with all seeds) trained: flip, frozen." in text
    assert len(calls(tmp_path)) == 4


def test_results_of_other_flags_are_refused(tmp_path, words, capsys):
    assert run_command(what_helps, *words) == 0
    (tmp_path / "rows/flip.flags").write_text("# Flips\n--vertical_flip=true\n")
    assert run_command(what_helps, *words) == 1
    assert "flip/seed-0.json: was made with other flags; delete" in capsys.readouterr().err


def test_a_row_that_fails_ends_all_and_says_why(tmp_path, words, capsys):
    (tmp_path / "rows/flip.flags").write_text("# Flips\n--fail\n")
    assert run_command(what_helps, *words) == 1
    assert "ended with code 1: no such flag: fail; see" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == README
    assert len(calls(tmp_path)) == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("base.flags", None, "holds no base.flags"),
        ("flip.flags", "--a=b\n", "flip.flags: its first line must be '# TITLE'"),
        ("flip.flags", "# Flips\n# weights from nowhere\n", "'weights from nowhere': must be another row"),
        ("flip.flags", "# Flips\n# weights from frozen\n", "that starts from nothing itself"),
    ],
)
def test_bad_rows_are_refused_at_the_start(tmp_path, words, capsys, name, text, message):
    path = tmp_path / "rows" / name
    path.unlink() if text is None else path.write_text(text)
    assert run_command(what_helps, *words) == 1
    assert message in capsys.readouterr().err


def test_bad_usage(tmp_path, words, capsys):
    assert run_command(what_helps, *words, "--only=flop") == 2
    assert "--only=flop: must be of base, flip, frozen" in capsys.readouterr().err
    assert run_command(what_helps, *words, "--jobs=1000") == 2
    (tmp_path / "README.md").write_text("no marks\n")
    assert run_command(what_helps, *words) == 1
    assert "must have the lines '<!-- rows -->' and '<!-- /rows -->'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_runner_goes_on_and_never_trains_a_run_twice_at_a_time(tmp_path, words):
    (tmp_path / "go").unlink()
    start = lambda: subprocess.Popen([sys.executable, "-c", RUNNER, *words], cwd=pathlib.Path.cwd())
    killed = start()
    _until(lambda: (tmp_path / "calls").exists() and calls(tmp_path))
    killed.kill()
    killed.wait()
    again = start()
    time.sleep(1.5)
    assert calls(tmp_path) == ["train base seed-0 "]  # the one left over is still under way
    (tmp_path / "go").touch()
    assert again.wait(60) == 0
    assert calls(tmp_path).count("train base seed-0 ") == 2
    assert calls(tmp_path).count("evaluate base seed-0 ") == 1
    assert "| Flips |" in (tmp_path / "README.md").read_text()


def test_sigterm_ends_what_it_started(tmp_path, words):
    (tmp_path / "go").unlink()
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, *words], cwd=pathlib.Path.cwd())
    alive = tmp_path / "runs/base/seed-0/alive"
    _until(alive.exists)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(60) == 130
    _until(lambda: not _locked(alive))


def _locked(path) -> bool:
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.scale
def test_a_row_of_the_real_commands(tmp_path, toy_shards):
    (tmp_path / "base.flags").write_text(
        "# Base\n--tasks=authenticity\n--backbone=small_cnn\n--head=avg\n--image_size=8\n"
    )
    (tmp_path / "first.flags").write_text("# First\n--tasks=category\n")
    (tmp_path / "frozen.flags").write_text("# Frozen\n# weights from first\n")
    rows = what_helps_runs.read_rows(tmp_path)
    runner = what_helps_runs.Runner(tmp_path / "runs", str(toy_shards), rows, 10)
    result = runner.result("frozen", 1)
    assert runner.finished("frozen", 1) == result
    assert (result["task"], result["images"], result["robustness_images"]) == ("authenticity", 54, 10)
    assert 0 <= result["accuracy"] <= 1
    assert set(result["robustness"]["jpeg"]) >= {"95", "50"}
    assert "1.0" in result["robustness"]["blur"]
    assert result["processor_seconds"] > 1
    flags = (tmp_path / "runs/frozen/seed-1/train.flags").read_text()
    assert f"--weights={tmp_path}/runs/first/seed-1/category/best.keras" in flags
    assert "--fine_tune=none" in flags
    assert "--seed=1" in flags


def test_the_rows_of_the_repository_parse_and_build():
    rows = what_helps_runs.read_rows(what_helps.HERE / "what_helps")
    assert {row.weights_from for row in rows.values()} == {None, "pretraining"}
    for name, row in rows.items():
        for flag in train.FLAGS:
            train.FLAGS[flag].unparse()
        words = [f"--flagfile={rows['base'].path}", f"--flagfile={row.path}", "--workdir=w", "--data_dir=d"]
        train.FLAGS(["train", *words])
        (task,) = task_flags.tasks(train.FLAGS, train.FLAGS.tasks)
        built = task_model.build(task.axis, task.architecture, ("x", "y"))
        assert built.head.trainable_variables, name
