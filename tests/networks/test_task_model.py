import subprocess
import sys

import keras
import numpy as np
import pytest
from absl import flags

from deepduel.networks import backbones, task_model
from deepduel.networks.architecture import PRECISIONS, Architecture
from deepduel.runs import task_flags
from tfrecords_tools.errors import DataError, UsageError

pytestmark = pytest.mark.numeric

CLASSES = {"category": ("animals", "human_faces", "vehicles"), "authenticity": ("real", "fake")}


def trained(task: task_model.TaskModel) -> int:
    variables = task.head.trainable_variables + task.extractor.trainable_variables
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.mark.parametrize(
    ("task", "parameters", "trainable"),
    [("category", 21_912_107, 1_050_627), ("authenticity", 70_297_410, 55_582_722)],
)
def test_the_originals_models_have_their_parameters(task, parameters, trainable):
    backbone, head = task_model.ORIGINAL[task]
    built = task_model.build(task, Architecture(backbone, head, 224), CLASSES[task])
    assert built.saved_model.count_params() == parameters
    assert trained(built) == trainable


@pytest.mark.parametrize("name", ["xception", "vgg16", "densenet121", "mobilenetv3small", "efficientnetv2b0"])
def test_preprocessing_equals_the_networks_own(name):
    _, preprocess_input = backbones.application(name)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype(np.float32)
    ours = np.asarray(backbones._preprocessing_layers(preprocess_input)(pixels))
    np.testing.assert_allclose(ours, preprocess_input(pixels.copy()), atol=2e-6)


@pytest.mark.slow
def test_a_saved_model_needs_nothing_of_ours(tmp_path):
    built = task_model.build(
        "category", Architecture("vgg16", "avg,dropout:0.5,dense:8", 32), CLASSES["category"]
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    expected = built.saved_model.predict(pixels, verbose=0)
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-6)
    built.saved_model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "pixels.npz", pixels=pixels, expected=expected)
    code = """
import sys, keras, numpy
kept = numpy.load("pixels.npz")
predictions = keras.models.load_model("model.keras").predict(kept["pixels"], verbose=0)
assert predictions.dtype == numpy.float32
numpy.testing.assert_allclose(predictions, kept["expected"], rtol=1e-5)
ours = ("deepduel", "tfrecords_tools", "keras_cv")
assert not [name for name in sys.modules if name.startswith(ours)]
"""
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)


def test_extractor_and_head_are_the_saved_model():
    built = task_model.build("a", Architecture("small_cnn", "avg,dense:8", 32, fine_tune="all"), ("x", "y"))
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    logits = built.head(built.extractor(pixels))
    np.testing.assert_allclose(keras.ops.softmax(logits), built.saved_model(pixels), rtol=1e-5)


def test_a_mirrored_model_gives_the_mean_of_both_views_and_is_plain_keras(tmp_path):
    fields = {"image_size": 16, "head": "flatten"}
    plain = task_model.build("a", Architecture("small_cnn", **fields), ("x", "y"))
    mirrored = task_model.build("a", Architecture("small_cnn", **fields, mirrored=True), ("x", "y"))
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    views = [plain.saved_model(images), plain.saved_model(images[:, :, ::-1])]
    assert np.abs(np.subtract(*views)).max() > 1e-3
    mirrored.saved_model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), np.mean(views, axis=0), atol=1e-6)
    assert np.array_equal(mirrored.extractor(images), plain.extractor(images))  # what training computes


def test_mirrored_is_true_or_false():
    values = task_flags_of("--mirrored=a=true")
    assert [task.architecture.mirrored for task in values] == [True, False]
    with pytest.raises(UsageError, match="--mirrored must be true or false, got 'yes'"):
        task_flags_of("--mirrored=yes")


def task_flags_of(*words: str):
    values = flags.FlagValues()
    task_flags.define(values)
    values(["test", *words])
    return task_flags.tasks(values, ["a", "b"])


def test_the_seed_decides_the_weights():
    def weights(seed):
        return task_model.build(
            "a", Architecture("small_cnn", image_size=16), ("x", "y"), seed=seed
        ).saved_model.get_weights()

    assert all((a == b).all() for a, b in zip(weights(1), weights(1), strict=True))
    assert any((a != b).any() for a, b in zip(weights(1), weights(2), strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_heads_and_outputs_are_float32(precision):
    architecture = Architecture("small_cnn", "avg,dense:8", 16, precision=precision)
    built = task_model.build("a", architecture, ("x", "y"))
    assert {layer.compute_dtype for layer in built.head.layers} == {"float32"}
    assert built.saved_model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_from_a_file(tmp_path, suffix):
    source = backbones.small_cnn(16)
    path = tmp_path / f"backbone{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    built = task_model.build(
        "a", Architecture("small_cnn", image_size=16, weights=str(path)), ("x", "y"), seed=5
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    expected = source(pixels / 127.5 - 1, training=False)
    np.testing.assert_allclose(built.extractor(pixels), np.mean(expected, axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_weights_from_a_model_that_was_trained_on_the_backbone(tmp_path):
    first = task_model.build("a", Architecture("small_cnn", "avg,dense:8", 16, fine_tune="all"), ("x", "y"))
    first.saved_model.save(tmp_path / "best.keras")
    weights = str(tmp_path / "best.keras")
    second = task_model.build(
        "b", Architecture("small_cnn", image_size=16, weights=weights), ("x", "y"), seed=5
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(first.extractor(pixels, training=False), second.extractor(pixels))


@pytest.mark.parametrize(
    ("words", "fine_tune"),
    [
        ([], "all"),
        (["--weights=best.keras"], "none"),
        (["--weights=best.keras", "--fine_tune=last:2"], "last:2"),
    ],
)
def test_small_cnn_is_trained_whole_unless_weights_are_given(words, fine_tune):
    flag_values = flags.FlagValues()
    task_flags.define(flag_values)
    flag_values(["train", "--backbone=small_cnn", *words])
    (task,) = task_flags.tasks(flag_values, ["authenticity"])
    assert task.architecture.fine_tune == fine_tune


def test_weights_of_another_network_are_refused(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(DataError, match="other.keras: these are not weights of small_cnn"):
        task_model.build(
            "a", Architecture("small_cnn", image_size=16, weights=str(tmp_path / "other.keras")), ("x", "y")
        )
    with pytest.raises(DataError, match="there is no such file; give imagenet, none, or"):
        task_model.build("a", Architecture("small_cnn", image_size=16, weights="nowhere.keras"), ("x", "y"))


@pytest.mark.parametrize("name", ["best.keras", "x.weights.h5"])
@pytest.mark.parametrize("data", [b"", b"PK\5\6" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(90)])
def test_weights_that_are_damaged_are_refused_in_one_line(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="these are not weights of small_cnn") as raised:
        task_model.build("a", Architecture("small_cnn", weights=str(tmp_path / name)), ("x", "y"))
    assert "\n" not in str(raised.value)


def test_a_failed_download_is_one_line_with_the_remedy(monkeypatch):
    def factory(**kwargs):
        raise Exception("URL fetch failure on https://example.org/x.h5: None -- no route\nmore")

    monkeypatch.setattr(backbones, "application", lambda name: (factory, lambda pixels: pixels))
    with pytest.raises(DataError, match="cannot be downloaded .*--weights=FILE.*--weights=none") as caught:
        task_model.build("a", Architecture("xception", image_size=96, weights="imagenet"), ("x", "y"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "vgg16", "head": "mean"}, "must be avg, max or flatten"),
        ({"backbone": "vgg16", "head": "avg,dense"}, "must be avg, max or flatten"),
        ({"backbone": "vgg16", "head": "avg,dropout:2"}, "must be avg, max or flatten"),
        ({"backbone": "vgg16", "precision": "float8"}, "precision must be one of"),
        ({"backbone": "vgg16", "image_size": 0}, "image_size must be at least 1"),
        ({"backbone": "small_cnn", "weights": "imagenet"}, "weights must be none or a file for small_cnn"),
        (
            {"backbone": "vgg16", "input_filter": "dct"},
            "input_filter must be one of none, highpass, srm, spectrum",
        ),
        ({"backbone": "vgg16", "stem_stride": -1}, "stem_stride must be at least 0"),
    ],
)
def test_bad_architectures_are_refused_at_birth(fields, message):
    with pytest.raises(UsageError, match=message):
        Architecture(**fields)


def test_an_unknown_backbone_is_named_with_those_that_there_are():
    with pytest.raises(
        UsageError, match="no backbone 'resnet51'; it must be one of small_cnn, forensic_cnn, convnext"
    ):
        task_model.build("a", Architecture("resnet51"), ("x", "y"))


def test_a_size_too_small_for_the_network():
    with pytest.raises(UsageError, match="vgg16 cannot be built at 8 px"):
        task_model.build("a", Architecture("vgg16", image_size=8), ("x", "y"))


@pytest.mark.parametrize("size", [1, 9, 32, 75])
def test_forensic_cnn_runs_at_any_size(size):
    built = task_model.build("a", Architecture("forensic_cnn", "avg", size, fine_tune="all"), ("x", "y"))
    assert built.saved_model(np.zeros((2, size, size, 3), np.float32)).shape == (2, 2)


def test_forensic_cnns_stem_skips_no_pixel():
    convolutions = [
        layer for layer in backbones.forensic_cnn(200).layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert convolutions[0].strides == (1, 1)
    assert backbones.forensic_cnn(200).output.shape[1:3] == (25, 25)
    assert backbones.forensic_cnn(200, stem_stride=2).output.shape[1:3] == (13, 13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnetv2b0", "resnet50", "xception"])
def test_a_stem_stride_of_one_keeps_the_weights_and_enlarges_the_maps(name):
    own, _ = backbones.build(name, 96)
    keras.utils.set_random_seed(0)
    changed, _ = backbones.build(name, 96, stem_stride=1)
    assert changed.count_params() == own.count_params()
    assert [tuple(w.shape) for w in changed.weights] == [tuple(w.shape) for w in own.weights]
    assert changed.output.shape[1] >= 2 * own.output.shape[1]


def test_a_stem_stride_keeps_what_the_network_computes():
    backbone, _ = backbones.build("mobilenetv2", 64)
    same, _ = backbones.build("mobilenetv2", 64, stem_stride=2)
    same.set_weights(backbone.get_weights())
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    np.testing.assert_array_equal(same(pixels, training=False), backbone(pixels, training=False))


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("vgg16", 1, "vgg16 has no convolution whose stride"),
        ("convnexttiny", 1, "convnexttiny has no convolution whose stride"),
        ("mobilenetv2", 3, "stem_stride must be at most 2 for mobilenetv2, got 3"),
    ],
)
def test_a_stem_stride_that_cannot_be_is_refused(name, stride, message):
    with pytest.raises(UsageError, match=message):
        task_model.build("a", Architecture(name, image_size=64, stem_stride=stride), ("x", "y"))
