"""Starting a task from the model of another run."""

import json
import shutil

import keras
import numpy as np
import pytest

from deepduel.networks import keras_file, start_model, task_model, weight_transfer
from deepduel.networks.architecture import Architecture
from deepduel.networks.start_model import StartModel
from tfrecords_tools.errors import DataError, UsageError

HEAD = "avg,dense:6,dropout:0.5,dense:5"
CLASSES = ("a", "b", "c")


def build(classes=CLASSES, head=HEAD, seed=1, **options) -> task_model.TaskModel:
    architecture = Architecture(**{"backbone": "small_cnn", "head": head, "image_size": 8} | options)
    return task_model.build("category", architecture, classes, seed=seed)


@pytest.fixture(scope="module", autouse=True)
def networks() -> None:
    """The network does not matter here, so tests/conftest.py's stays."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an untrained model of random weights, batch-norm statistics included."""
    folder = tmp_path_factory.mktemp("start") / "run"
    (folder / "category").mkdir(parents=True)
    model = build(seed=7, fine_tune="all").saved_model
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, array.shape) for array in model.get_weights()])
    keras_file.save(model, folder / "category" / "best.keras")
    card = {"tasks": {"category": {"classes": CLASSES, "image_size": 8}}, "size": [8, 8], "fit": "crop"}
    card |= {"fast_decode": False, "data_name": "x", "data_source": "", "seed": 0}
    (folder / "run.json").write_text(json.dumps(card))
    return folder


def test_the_same_network_and_classes_start_as_the_run_ended(run):
    model = build(fine_tune="last:1")
    saved = keras.models.load_model(run / "category" / "best.keras", compile=False)
    path = run / "category" / "best.keras"
    assert (
        weight_transfer.transfer(start_model.find(str(run), "category"), model)
        == f"{path}: backbone and head"
    )
    pixels = np.random.default_rng(1).uniform(0, 255, (4, 8, 8, 3))
    np.testing.assert_array_equal(saved(pixels), model.saved_model(pixels))


def test_classes_in_another_order_are_matched_by_name(run):
    model = build(("c", "a", "b"))
    saved = keras.models.load_model(run / "category" / "best.keras", compile=False)
    assert weight_transfer.transfer(start_model.find(str(run), "category"), model).endswith(
        "backbone and head"
    )
    pixels = np.random.default_rng(1).uniform(0, 255, (4, 8, 8, 3))
    expected = saved(pixels).numpy()[:, [2, 0, 1]]
    np.testing.assert_allclose(expected, model.saved_model(pixels), rtol=1e-6)


@pytest.mark.parametrize(
    ("classes", "head", "layers", "says"),
    [
        (("a", "b"), HEAD, 2, "backbone, but not the head's last layer (its classes are a, b, c)"),
        (CLASSES, "avg,dense:6,dense:9", 1, "not the head from dense layer 2 on (its shape differs)"),
        (CLASSES, "avg,dense:6", 1, "not the head's last layer (the heads have other layers)"),
        (CLASSES, "avg", 0, "not the head's last layer (the heads have other layers)"),
    ],
)
def test_what_does_not_fit_is_said_and_keeps_its_initial_weights(run, classes, head, layers, says):
    model, untouched = build(classes, head), build(classes, head)
    assert says in weight_transfer.transfer(start_model.find(str(run), "category"), model)
    pairs = list(zip(model.head.get_weights(), untouched.head.get_weights(), strict=True))
    same = [bool((one == other).all()) for one, other in pairs]
    assert same == [False, False] * layers + [True, True] * (len(pairs) // 2 - layers)
    before, after = untouched.extractor.get_weights(), model.extractor.get_weights()
    assert not any((one == other).all() for one, other in zip(before, after, strict=True) if one.size > 1)


def test_another_backbone_is_refused(run):
    path = run / "category" / "best.keras"
    with pytest.raises(DataError, match=f"{path}: its backbone .* is not forensic_cnn of the same shape"):
        weight_transfer.transfer(StartModel(str(path), CLASSES), build(backbone="forensic_cnn"))


def test_a_run_a_task_and_a_model_are_found(run):
    best = StartModel(str(run / "category" / "best.keras"), CLASSES)
    for name in (run, run / "category", run / "category" / "best.keras"):
        assert start_model.find(str(name), "category") == best
    assert start_model.find(str(run / "category"), "other") == best
    with pytest.raises(UsageError, match="has no task 'other'; it has category: name one as RUN/TASK"):
        start_model.find(str(run), "other")
    with pytest.raises(DataError, match="there is no such model; the first is saved"):
        start_model.find(str(run / "category" / "epoch-09.keras"), "category")
    with pytest.raises(DataError, match="no run.json, so this is not a run's folder"):
        start_model.find(str(run.parent / "nowhere"), "category")


def test_a_kept_model_outlives_the_run_that_it_came_from(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    assert start_model.kept(tmp_path, "category") is None
    written = start_model.keep(start_model.find(str(other), "category"), tmp_path, "category")
    shutil.rmtree(other)
    kept = start_model.kept(tmp_path, "category")
    assert kept == written and kept.classes == CLASSES
    assert weight_transfer.transfer(kept, build()).endswith("backbone and head")


def test_a_model_that_has_another_runs_classes_is_refused(run):
    start = StartModel(str(run / "category" / "best.keras"), ("a", "b"))
    with pytest.raises(DataError, match=r"its output \(3,\) does not fit the 2 classes of its run.json"):
        weight_transfer.transfer(start, build(("a", "b")))
