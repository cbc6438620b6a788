"""Training on stored features: the same run as on images, up to float16's rounding."""

import csv
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel import train
from deepduel.augment import PRESETS
from deepduel.decoding.split import Split
from deepduel.networks import task_model
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from deepduel.reading.options import ReadOptions
from deepduel.training import feature_store, features
from deepduel.training.passes import Passes
from deepduel.training.task import Task
from tests.conftest import run_command

FROZEN = (
    "--tasks=category",
    "--backbone=vgg16",
    "--weights=none",
    "--head=avg,dropout:0.2,dense:16",
    "--image_size=32",
    "--batch_size=64",
    "--augmentation=forensic",
)


OPTIONS = {"micro_batch": 16, "passes": Passes(), "seed": 5, "views": 1}


def _train(shards, workdir, *words) -> int:
    return run_command(train, f"--data_dir={shards}", f"--workdir={workdir}", *FROZEN, *words)


def _history(workdir) -> list[dict[str, float]]:
    with (workdir / "history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _weights(workdir) -> list[np.ndarray]:
    return keras.models.load_model(workdir / "category" / "epoch-02.keras").get_weights()


@pytest.fixture(scope="module")
def small_chunks():
    patch = pytest.MonkeyPatch()
    patch.setattr(feature_store, "CHUNK", 48)  # several per split of 168 and 54 images
    yield
    patch.undo()


@pytest.fixture(scope="module")
def kept(toy_shards, tmp_path_factory, small_chunks):
    """Two epochs on two views' features."""
    workdir = tmp_path_factory.mktemp("features") / "run"
    assert _train(toy_shards, workdir, "--cache=features", "--views=2", "--epochs=2") == 0
    return workdir


@pytest.mark.slow
def test_the_first_epochs_are_those_on_images(kept, toy_shards, tmp_path):
    assert _train(toy_shards, tmp_path / "run", "--epochs=2") == 0
    for ours, theirs in zip(_history(kept), _history(tmp_path / "run"), strict=True):
        for name in ("category_loss", "val_category_loss", "category_accuracy", "val_category_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=0.02, abs=0.02), name
    differences = [
        np.abs(one - other).max()
        for one, other in zip(_weights(kept), _weights(tmp_path / "run"), strict=True)
    ]
    assert max(differences) < 0.01 and not all(differences)


@pytest.mark.slow
def test_more_epochs_read_what_is_there(kept, toy_shards, tmp_path, capsys, monkeypatch):
    shutil.copytree(kept, tmp_path / "run")
    monkeypatch.setattr(feature_store.FeatureStore, "write", None)  # nothing is computed again
    assert (
        _train(toy_shards, tmp_path / "run", f"--cache=features:{kept}/features", "--views=2", "--epochs=3")
        == 0
    )
    assert len(_history(tmp_path / "run")) == 3 and "damaged" not in capsys.readouterr().out


@pytest.mark.slow
def test_stopped_while_computing_features_it_resumes_to_the_same_run(
    kept, toy_shards, tmp_path, capsys, monkeypatch
):
    write, written = feature_store.FeatureStore.write, []

    def count(store, view, chunk, rows):
        written.append((store.source.split, view, chunk))
        write(store, view, chunk, rows)

    monkeypatch.setattr(feature_store.FeatureStore, "write", count)
    words = "--cache=features", "--views=2", "--epochs=2"
    assert _train(toy_shards, tmp_path / "run", *words, "--max_minutes=0.0001") == 0
    assert "resume with" in capsys.readouterr().out and len(written) == 1
    assert _train(toy_shards, tmp_path / "run", *words) == 0
    assert len(written) == len(set(written)) == 2 + 2 * 4  # 54 and twice 168 images in chunks of 48
    for ours, theirs in zip(_weights(tmp_path / "run"), _weights(kept), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_other_augmentation_has_other_features(kept, toy_shards, tmp_path):
    words = f"--cache=features:{kept}/features", "--views=2", "--augmentation=none", "--epochs=1"
    before = {path.name for path in (kept / "features").iterdir()}
    assert _train(toy_shards, tmp_path / "run", *words) == 0
    (new,) = {path.name for path in (kept / "features").iterdir()} - before
    assert new.startswith("category-train-")  # the plain ones of validation are shared


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--views=2",), "--views=2 needs --cache=features"),
        (("--cache=features:",), "names no folder"),
        (("--cache=features", "--reader=sequential"), "needs --reader=random"),
        (("--cache=features", "--fine_tune=all"), "backbone is trained"),
    ],
)
def test_what_does_not_go_with_features_is_a_usage_error(words, says, toy_shards, tmp_path, capsys):
    assert _train(toy_shards, tmp_path / "run", *words) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_on_features_does_not_resume_on_images_or_other_views(kept, toy_shards, capsys):
    assert _train(toy_shards, kept, "--views=3", "--cache=features", "--epochs=4") == 1
    assert "--views=2" in capsys.readouterr().err
    assert _train(toy_shards, kept, "--epochs=4") == 1
    assert "--cache=features" in capsys.readouterr().err


def test_crops_at_native_resolution_are_those_of_the_epoch(toy_shards, tmp_path, small_chunks):
    split, reading = Split(toy_shards, "train"), ReadOptions(32, size=(24, 24), fit="native")
    model = task_model.build("category", Architecture("small_cnn", image_size=24), ("a", "b", "c"))
    task = Task("category", model, PRESETS["none"], keras.optimizers.Adam())
    kept = features.Features(tmp_path, split, reading, (task,), **OPTIONS)
    kept.compute()
    position = order.Position(seed=5, step=2)
    ours = next(iter(kept.train_batches(position)))
    images = next(iter(pipeline.train_batches(split, reading, position)))
    np.testing.assert_array_equal(ours["records"], images["records"])
    expected = model.extractor(tf.cast(images["images"], tf.float32), training=False)
    np.testing.assert_allclose(ours["features"]["category"], expected, atol=2e-3, rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"input_filter": "spectrum"}, {"stem_stride": 1}])
def test_what_is_in_front_of_the_same_weights_has_other_features(toy_shards, tmp_path, change):
    split, reading = Split(toy_shards, "train"), ReadOptions(32, size=(70, 70))
    for fields in ({}, change):
        architecture = Architecture("small_cnn", image_size=70, **fields)
        model = task_model.build("category", architecture, ("a", "b", "c"))
        task = Task("category", model, PRESETS["none"], keras.optimizers.Adam())
        features.Features(tmp_path, split, reading, (task,), **OPTIONS).compute()
    assert len(list(tmp_path.iterdir())) == 2
