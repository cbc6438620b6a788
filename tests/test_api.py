"""Python calls do what the commands do, with the same options, and raise where those exit."""

import inspect
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow
import pytest
from PIL import Image

import deepduel
from deepduel import keywords, predict
from deepduel.decoding.split import Split
from tests.helpers import folders
from tests.helpers.fake_runs import write_run

NETWORK = {"backbone": "small_cnn", "head": "avg", "image_size": 8, "augmentation": "none", "batch_size": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_shards) -> deepduel.Run:
    """Untrained models; all of their mistakes are mistakes."""
    workdir = write_run(tmp_path_factory.mktemp("api") / "run", toy_shards)
    (workdir / "train.flags").write_text(f"--data_dir={toy_shards}\n")
    return deepduel.Run(workdir)


@pytest.mark.slow
def test_a_folder_becomes_a_run_that_evaluates_and_predicts(tmp_path):
    images = folders.make(tmp_path / "my images", {"cats": 20, "dogs": 10})
    run = deepduel.fit(images, epochs=2, **NETWORK)
    assert run.path == tmp_path / "my images.deepduel" / "run-01"
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert "<svg" in run._repr_html_() and "cats, dogs" in run._repr_html_()
    assert sum(row[name] for row in run.confusion() for name in ("cats", "dogs")) == 6
    moved = run.path.parent.rename(tmp_path / "moved")  # the shards are beside the run
    again = deepduel.Run(moved / "run-01")
    assert again.evaluate(bootstrap=0)["tasks"]["category"]["images"] == 6
    assert len(again.predict(images)) == 30


@pytest.mark.slow
def test_an_interrupt_saves_the_state_and_the_same_call_resumes(tmp_path, toy_shards, capsys, real_networks):
    """Also where SIGINT was ignored, as in a process that a shell started in the background."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def interrupt() -> None:
        while not (tmp_path / "run" / "category" / "best.keras").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    options = NETWORK | {"tasks": ["category"], "augmentation": {"category": "light"}}
    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            deepduel.train(toy_shards, tmp_path / "run", epochs=999, **options)
    finally:
        signal.signal(signal.SIGINT, earlier)
    done = len(deepduel.Run(tmp_path / "run").history)
    assert 1 <= done < 999
    run = deepduel.train(toy_shards, tmp_path / "run", epochs=done + 1, **options)
    assert f"resuming at epoch {done + 1}" in capsys.readouterr().out
    assert len(run.history) == done + 1


def test_convert_takes_the_options_of_the_command(tmp_path):
    images = folders.make(tmp_path / "images", {"cats": 3, "dogs": 3})
    shards = deepduel.convert(images, tmp_path / "shards", image_size=16, encoding="png", workers=1)
    train = deepduel.make_train(shards, batch_size=2, labels="category")
    assert next(iter(train))[0].shape == (2, 16, 16, 3)


def test_images_of_every_kind_get_the_same_probabilities(run, toy_folder):
    paths = sorted((toy_folder / "test").iterdir())[:3]
    opened = [Image.open(path) for path in paths]
    arrays = np.stack([np.asarray(image) for image in opened])
    by_path = run.predict(paths[::-1])
    assert [row["image"] for row in by_path] == [str(path) for path in paths[::-1]]  # the given order
    for images in (opened, arrays, arrays.astype(np.float32), list(arrays)):
        rows = run.predict(images)
        assert [row.pop("image") for row in rows] == ["0", "1", "2"]
        assert [row | {"image": str(path)} for row, path in zip(rows, paths, strict=True)] == by_path[::-1]
    (alone,) = run.predict(opened[0], tasks=["category"])
    assert alone["p_category_animals"] == by_path[2]["p_category_animals"] and "label" not in alone
    mixed = run.predict([arrays[0], paths[1], opened[2]])
    assert [row["image"] for row in mixed] == ["0", str(paths[1]), "1"]
    assert len(mixed.pictures) == 3 and mixed._repr_html_().count("<img") == 3
    repeated = [paths[0], paths[1], paths[0]]  # as a column of a table may name them
    assert [row["image"] for row in run.predict(repeated)] == list(map(str, repeated))


def test_images_that_are_none_are_refused(run, tmp_path, capsys):
    for images, error, words in (
        (7, TypeError, r"images must be paths, URLs, .*, got int: 7"),
        ([None], TypeError, "NoneType"),
        (np.zeros((5, 5, 4), np.uint8), deepduel.UsageError, r"image 0: .*\(5, 5, 4\)"),
        ([np.full((5, 5, 3), 300.0)], deepduel.UsageError, "0 to 255, got 300"),
        (np.random.default_rng(0).random((5, 5, 3)), deepduel.UsageError, "multiply values of 0 to 1 by 255"),
        (tmp_path / "none.jpg", deepduel.DataError, "no such folder or file"),
    ):
        with pytest.raises(error, match=words):
            run.predict(images)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert run.predict(tmp_path / "broken.jpg") == []
    assert "left out" in capsys.readouterr().out
    with pytest.raises(deepduel.DataError, match=r"set on_error=skip"):
        run.predict(tmp_path / "broken.jpg", on_error="fail")


@pytest.mark.slow
def test_confusion_and_mistakes_are_those_of_the_newest_models(run, toy_shards):
    document = run.evaluate(bootstrap=0)
    counts = [[row[name] for name in run.classes["category"]] for row in run.confusion("category")]
    assert counts == document["tasks"]["category"]["confusion"]
    mistakes = run.mistakes("category")
    assert len(mistakes) == sum(map(sum, counts)) - sum(counts[i][i] for i in range(3)) > 10
    assert all(row["label"] != row["predicted"] for row in mistakes)
    confidences = [row["confidence"] for row in mistakes]
    assert confidences == sorted(confidences, reverse=True)
    split = Split(toy_shards, "validation")
    record = next(n for n in range(len(split)) if split.key(n).decode() == mistakes[3]["image"])
    np.testing.assert_array_equal(mistakes.pictures[3], split.pixels(record))
    assert run._repr_html_().count("<img") > 24
    assert pyarrow.Table.from_pylist(mistakes).column_names == ["image", "label", "predicted", "confidence"]
    with pytest.raises(deepduel.UsageError, match="axis must be one of authenticity, category"):
        run.confusion()
    other = write_run(run.path.parent / "other", toy_shards, seed=1)
    shutil.copy(other / "category" / "best.keras", run.path / "category" / "best.keras")
    changed = [[row[name] for name in run.classes["category"]] for row in run.confusion("category")]
    assert changed != counts


def test_confusion_is_read_where_the_evaluation_was_written(run, monkeypatch):
    """Shards that were appended to are other data than the run's, and their evaluation has another name."""

    def evaluated(options):
        folder = run.path / "evaluation" / f"toy-{options.split}"
        folder.mkdir(parents=True)
        columns = ",".join(f"p_category_{name}" for name in run.classes["category"])
        rows = f"key,category,category_predicted,{columns}\n1.jpg,animals,vehicles,0,0,1\n"
        (folder / "predictions.csv").write_text(rows)
        (folder / "metrics.json").write_text('{"about": {}}')
        return folder

    monkeypatch.setattr("deepduel.evaluate.evaluated", evaluated)
    assert run.confusion("category", split="holdout")[0]["vehicles"] == 1
    assert len(run.mistakes("category", split="toy-holdout").pictures) == 0


def test_the_shards_of_a_run_are_those_of_its_flags(run, tmp_path, toy_shards):
    (tmp_path / "run").mkdir()
    shutil.copy(run.path / "run.json", tmp_path / "run")
    copied = deepduel.Run(tmp_path / "run")
    with pytest.raises(deepduel.UsageError, match=r"trained on are not at .*shards; set data_dir"):
        copied.evaluate()  # has no train.flags
    for data_dir in (f"file://{toy_shards}", "memory://bucket/shards"):
        (copied.path / "train.flags").write_text(f"--data_dir={data_dir}\n")
        assert copied._data_dir() == data_dir


def test_lists_and_numbers_of_any_kind_are_options():
    columns = ["image", "a=p_category_salt, pepper", 'p_category_"x"']
    options = {"columns": columns, "batch_size": np.int64(7)}
    values = keywords.parsed(predict, options, function="predict", names=list(options))
    assert values.columns == columns and values.batch_size == 7


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: deepduel.train("x", "y", epoch=3), r"train\(\) .* 'epoch'; did you mean epochs"),
        (lambda: deepduel.fit("x", workdirs="y"), r"fit\(\) got an unexpected keyword argument 'workdirs'"),
        (lambda: deepduel.convert("x", "y", layuot="z"), r"convert\(\) .* did you mean layout"),
        (lambda: deepduel.train("x", "y", data_dir="z"), "multiple values for argument 'data_dir'"),
    ],
)
def test_an_unknown_option_is_a_type_error_with_the_names_it_may_mean(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_errors_speak_of_arguments(tmp_path, toy_shards):
    for options, words in (
        ({"epochs": 0}, "^epochs must be at least 1"),
        ({"optimizer": "none"}, "^optimizer"),
        ({"batch_size": "many"}, "batch_size.*many"),
        ({"epochs": object()}, "^epochs must be a string, a number or a boolean, got object"),
    ):
        with pytest.raises(deepduel.UsageError, match=words) as error:
            deepduel.train(toy_shards, tmp_path / "run", **NETWORK | options)
        assert "--" not in str(error.value)
    with pytest.raises(deepduel.DataError, match="no such folder"):
        deepduel.convert(tmp_path / "none", tmp_path / "out")
    with pytest.raises(deepduel.DataError, match="no run.json"):
        deepduel.Run(tmp_path)
    assert not (tmp_path / "run").exists()


def test_functions_show_the_options_of_their_commands():
    for function in (deepduel.train, deepduel.fit):
        shown = inspect.signature(function).parameters
        assert shown["batch_size"].default == 512 and "keep_epochs" in shown
    assert list(inspect.signature(deepduel.convert).parameters)[:2] == ["input_dir", "output_dir"]
    assert "image_size" in inspect.signature(deepduel.convert).parameters


def test_modules_of_commands_stay_modules_and_load_no_tensorflow():
    program = (
        "import sys, deepduel, deepduel.api\n"
        "from deepduel import fit, train\n"
        "assert train.FLAGS and fit.main and callable(deepduel.train) and train is deepduel.train\n"
        "assert deepduel.convert and deepduel.Run\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert 'deepduel.fit' in repr(fit)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    help_text = subprocess.run(
        [sys.executable, "-m", "deepduel.train", "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert "--epochs" in help_text
