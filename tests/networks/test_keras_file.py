import json
import os
import subprocess
import zipfile

import keras
import numpy as np
import pytest

from deepduel.networks import keras_file, task_model
from deepduel.networks.architecture import Architecture
from tfrecords_tools.errors import DataError

CLASSES = ("a", "b", "c")
NEWER = {"input_axes", "output_axes", "quantization_config", "renorm", "renorm_clipping", "renorm_momentum"}


def config(path) -> dict:
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("config.json"))


def serialized(config) -> list[dict]:
    """All serialized objects in a config."""
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    inner = [entry for part in parts for entry in serialized(part)]
    is_object = isinstance(config, dict) and "class_name" in config and isinstance(config.get("config"), dict)
    return [config, *inner] if is_object else inner


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(path, model, pixels): a model with operations, batch norms and dense layers."""
    path = tmp_path_factory.mktemp("keras_file") / "model.keras"
    architecture = Architecture("small_cnn", "avg,dense:4", 16, input_filter="highpass", mirrored=True)
    model = task_model.build("category", architecture, CLASSES).saved_model
    keras_file.save(model, path)
    return path, model, np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)


def test_a_saved_file_has_no_argument_of_a_newer_keras_that_holds_its_default(saved):
    objects = serialized(config(saved[0]))
    assert len(objects) > 50
    for part in objects:
        assert not NEWER & part["config"].keys(), part["class_name"]
        assert not (str(part.get("module")).startswith("keras.src.ops") and "name" in part["config"])


def test_a_saved_file_is_a_sound_archive_with_each_entry_once(saved):
    with zipfile.ZipFile(saved[0]) as file:
        assert file.testzip() is None
        assert sorted(file.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
    assert [path.name for path in saved[0].parent.iterdir()] == ["model.keras"]


def test_a_saved_file_loads_with_the_same_predictions(saved):
    path, model, pixels = saved
    again = keras_file.load(path).predict(pixels, verbose=0)
    np.testing.assert_array_equal(again, model.predict(pixels, verbose=0))


def test_arguments_with_other_values_stay(tmp_path):
    layer = keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomUniform(-1, 1, seed=3))
    model = keras.Sequential([keras.Input((3,)), layer])
    keras_file.save(model, tmp_path / "model.keras")
    keras.saving.save_model(model, tmp_path / "plain.keras")
    ours, plain = (serialized(config(tmp_path / name)) for name in ("model.keras", "plain.keras"))
    assert [part["class_name"] for part in ours] == [part["class_name"] for part in plain]
    for part, whole in zip(ours, plain, strict=True):
        missing = whole["config"].keys() - part["config"].keys()
        assert missing <= NEWER and all(whole["config"][name] in (None, False, 0.99) for name in missing)
    stripped = keras_file._without_newer(
        {"class_name": "BatchNormalization", "config": {"renorm": True, "renorm_momentum": 0.5, "axis": None}}
    )
    assert stripped["config"] == {"renorm": True, "renorm_momentum": 0.5, "axis": None}


def rewritten(path, saved, version: str):
    """The saved file as a Keras of another version might have written it, with an argument of its own."""
    with zipfile.ZipFile(saved[0]) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
            if name == "config.json":
                changed = source.read(name).replace(b'"epsilon"', b'"of_the_future": 1, "epsilon"')
                target.writestr(name, changed)
            if name == "metadata.json":
                target.writestr(name, json.dumps({"keras_version": version, "date_saved": ""}))
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_of_a_newer_keras_that_cannot_be_loaded_names_both_versions(tmp_path, saved):
    path = rewritten(tmp_path / "newer.keras", saved, "99.1.0")
    with pytest.raises(DataError) as error:
        keras_file.load(path)
    assert str(error.value) == (
        f"{path}: cannot be loaded: written by Keras 99.1.0, this is {keras.__version__}; "
        "pip install 'keras>=99.1.0'"
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_no_version_is_not_shown(tmp_path, saved):
    with pytest.raises(TypeError, match="of_the_future"):
        keras_file.load(rewritten(tmp_path / "newer.keras", saved, "99.1.0\nsecond line"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_damaged_file_is_not_put_down_to_its_version(tmp_path, saved):
    with pytest.raises(TypeError, match="of_the_future"):
        keras_file.load(rewritten(tmp_path / "older.keras", saved, "3.8.0"))
    (tmp_path / "empty.keras").write_bytes(b"")
    with pytest.raises(ValueError):
        keras_file.load(tmp_path / "empty.keras")


# One network of each family of keras.applications, both of our own, and all our layers around them.
EVERY_KIND = (
    *(("small_cnn", {"input_filter": name}) for name in ("highpass", "srm", "spectrum")),
    ("small_cnn", {"mirrored": True, "head": "flatten,dropout:0.5,dense:8"}),
    ("small_cnn", {"precision": "mixed_float16", "fine_tune": "all"}),
    ("forensic_cnn", {"precision": "mixed_bfloat16", "head": "max"}),
    ("mobilenetv2", {"stem_stride": 1}),
    *(
        (name, {})
        for name in (
            "convnexttiny", "densenet121", "efficientnetb0", "efficientnetv2b0", "inceptionresnetv2",
            "inceptionv3", "mobilenet", "mobilenetv3large", "mobilenetv3small", "nasnetmobile", "resnet50",
            "resnet50v2", "vgg16", "vgg19", "xception",
        )
    ),
)  # fmt: skip

LOADING = """
import glob, sys, keras, numpy
for path in sorted(glob.glob(sys.argv[1] + "/*.keras")):
    kept = numpy.load(path + ".npz")
    try:
        outputs = keras.models.load_model(path).predict(kept["pixels"], verbose=0)
    except Exception as error:
        sys.exit(f"Keras {keras.__version__}: {path}: {error}")
    numpy.testing.assert_allclose(outputs, kept["outputs"], atol=0.01, err_msg=path)
    keras.backend.clear_session()
print(keras.__version__)
"""


@pytest.mark.keras_compat
@pytest.mark.slow
def test_other_versions_of_keras_load_every_kind_of_model(tmp_path):
    pythons = os.environ.get("DEEPDUEL_KERAS_PYTHONS", "").split()
    if not pythons:
        pytest.skip("`make test-keras-compat` makes environments of other versions and names their Pythons")
    for number, (backbone, options) in enumerate(EVERY_KIND):
        size = 224 if backbone == "nasnetmobile" else 96
        architecture = Architecture(backbone, **{"image_size": size, **options})
        model = task_model.build("category", architecture, CLASSES, seed=number).saved_model
        path = tmp_path / f"{number:02d}-{backbone}.keras"
        keras_file.save(model, path)
        pixels = np.random.default_rng(number).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
        np.savez(f"{path}.npz", pixels=pixels, outputs=model.predict(pixels, verbose=0))
        keras.backend.clear_session()
    for python in pythons:
        done = subprocess.run([python, "-c", LOADING, tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.startswith("3.")
