"""Image folders and shards that the tests share. Everything is drawn here; nothing is downloaded."""

import csv
import gc
import os
import pathlib
import subprocess
import sys

import pytest

from deepduel import toy_images
from tfrecords_tools import cli, convert

TOY_COUNT, TOY_SIZE = 240, 32
TOY_TRAINING = (
    "--tasks=category,authenticity",
    "--backbone=small_cnn",
    "--head=avg",
    "--image_size=16",
    "--augmentation=forensic",
    "--batch_size=64",
)

# TensorFlow's threads warn from C++ of errors that tests provoke, between tests too, when pytest captures
# nothing. What fails raises in Python with the same words.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_OWN_PROCESS = "DEEPDUEL_TESTS_OWN_PROCESS"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test with the mark `own_process` in one, where nothing else counts or collects.

    Such tests have failed in a process that had run many others. The one cause that is known: gc.collect()
    returns at once, and collects nothing, while another thread's collection waits in a finalizer.
    """
    if pyfuncitem.get_closest_marker("own_process") is None or _OWN_PROCESS in os.environ:
        return None
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath,
        env=kept | {_OWN_PROCESS: "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def run_command(module, *words: str) -> int:
    """Runs a command in this process, as its console script would; returns its exit code."""
    _forget(module.FLAGS)
    try:
        return cli.run(
            module.main,
            module.FLAGS,
            name=module.__name__,
            argv=[module.__name__, *map(str, words)],
            words=getattr(module, "WORDS", None),
        )
    finally:
        _forget(module.FLAGS)  # commands that run another one give it some flags only


def history_rows(workdir: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a run's history.csv."""
    with (workdir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _forget(flags) -> None:
    flags.unparse_flags()
    for name in flags:
        flags[name].unparse()


@pytest.fixture(scope="session", autouse=True)
def tiny_networks(request) -> None:
    """small_cnn is `tiny_network`: tracing the real one would be most of a training's time on toy images."""
    if all("tfrecords_tools" in item.path.parts for item in request.session.items):
        return  # no TensorFlow
    from tests.helpers import tiny_network

    tiny_network.install()


@pytest.fixture(scope="session", autouse=True)
def frozen_modules(tiny_networks) -> None:
    """A collection looks through what tests have made, not through the objects of TensorFlow's modules."""
    gc.freeze()


@pytest.fixture
def real_networks(monkeypatch) -> None:
    from deepduel.networks import backbones

    monkeypatch.setitem(backbones.OWN, "small_cnn", backbones.small_cnn)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory) -> pathlib.Path:
    """240 toy images of 32x32 pixels: train 168, validation 54, test 18; do not write to it."""
    folder = tmp_path_factory.mktemp("toy") / "images"
    toy_images.write_folder(folder, count=TOY_COUNT, size=TOY_SIZE, seed=0)
    return folder


@pytest.fixture(scope="session")
def toy_shards(toy_folder) -> pathlib.Path:
    """The same as shards, three per split; do not write to it."""
    folder = toy_folder.parent / "shards"
    code = run_command(
        convert, f"--input_dir={toy_folder}", f"--output_dir={folder}", "--num_shards=3", "--workers=1"
    )
    assert code == 0
    return folder


@pytest.fixture(scope="session")
def toy_run(toy_shards) -> pathlib.Path:
    """Both tasks trained on `toy_shards` for two short epochs; do not write to it."""
    from deepduel import train

    workdir = toy_shards.parent / "run"
    words = f"--data_dir={toy_shards}", f"--workdir={workdir}", *TOY_TRAINING, "--epochs=2"
    assert run_command(train, *words) == 0
    return workdir
