import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from deepduel import train
from deepduel.augmentation import flags as augmentation_flags
from deepduel.augmentation.mixing_options import Mixing
from deepduel.augmentation.options import Augmentation
from deepduel.augmentation.parameters import parameters
from deepduel.augmentation.presets import PRESETS
from deepduel.networks import task_model
from deepduel.networks.architecture import Architecture
from deepduel.networks.run_card import RunCard
from deepduel.prediction import predictor
from deepduel.runs import task_flags
from deepduel.training import step, task
from tests.conftest import TOY_TRAINING, run_command
from tfrecords_tools.errors import UsageError

AXES = ["category", "authenticity"]


def parse(*words):
    """{axis: (Augmentation, Mixing)} of a command line."""
    train.FLAGS.unparse_flags()
    for name in train.FLAGS:
        train.FLAGS[name].unparse()
    train.FLAGS(["train", "--data_dir=SHARDS", "--workdir=RUN", *words])
    return {task.axis: (task.augmentation, task.mixing) for task in task_flags.tasks(train.FLAGS, AXES)}


def test_every_parameter_has_a_flag():
    defined = flags.FlagValues()
    augmentation_flags.define(defined)
    assert set(defined) - set(flags.FlagValues()) == {*parameters(Augmentation), *parameters(Mixing)}
    assert all(" [per task]" in defined[name].help for name in parameters(Augmentation))


def test_a_command_without_tasks_mixes_nothing():
    defined = flags.FlagValues()
    augmentation_flags.define(defined, tasks=False)
    assert set(defined) - set(flags.FlagValues()) == set(parameters(Augmentation))
    assert not any("[per task]" in defined[name].help for name in defined)


def test_a_preset_alone_is_the_preset():
    for name in PRESETS:
        assert parse(f"--augmentation={name}") == {axis: (PRESETS[name], Mixing()) for axis in AXES}


def test_presets_mean_what_they_always_meant():
    """A run's flags name its preset: to change one would change what train.flags reproduces."""
    assert {name: str(preset) for name, preset in PRESETS.items()} == {
        "none": "",
        "original": "rotation_range=30, width_shift_range=0.1, height_shift_range=0.1, shear_range=0.1, "
        "zoom_range=0.3, horizontal_flip=true, vertical_flip=true, brightness_range=0.3,1.7",
        "forensic": "horizontal_flip=true, vertical_flip=true, quarter_turns=true, shift_pixels=8",
        "robust": "horizontal_flip=true, vertical_flip=true, quarter_turns=true, shift_pixels=8, "
        "blur_sigma=0.0,1.5, blur_probability=0.2, jpeg_quality=60,100, jpeg_probability=0.5",
        "light": "rotation_range=10, width_shift_range=0.05, height_shift_range=0.05, zoom_range=0.1, "
        "horizontal_flip=true, brightness_range=0.8,1.2",
    }


def test_parameters_change_the_preset_for_one_task_or_all():
    parsed = parse(
        "--augmentation=original", "--augmentation=authenticity=none", "--rotation_range=15",
        "--rotation_range=authenticity=0", "--zoom_range=[0.8, 1.2]", "--brightness_range=category=none",
        "--vertical_flip=category=false", "--width_shift_range=authenticity=5", "--mixup_alpha=category=0.2",
    )  # fmt: skip
    assert parsed["category"] == (
        Augmentation(
            rotation_range=15, width_shift_range=0.1, height_shift_range=0.1, shear_range=0.1,
            zoom_range=(0.8, 1.2), horizontal_flip=True,
        ),
        Mixing(mixup_alpha=0.2),
    )  # fmt: skip
    expected = Augmentation(rotation_range=0, width_shift_range=5, zoom_range=(0.8, 1.2))
    assert parsed["authenticity"] == (expected, Mixing())


def test_each_parameter_is_parsed_as_it_is_printed():
    texts = {
        "rotation_range": "12.5", "width_shift_range": "3,-5", "height_shift_range": "2.0",
        "shear_range": "4", "zoom_range": "0.7,1.1", "horizontal_flip": "true", "vertical_flip": "0",
        "channel_shift_range": "20", "brightness_range": "(0.5, 1.5)", "fill_mode": "constant", "cval": "9",
        "quarter_turns": "1", "shift_pixels": "2", "crop_size": "16", "blur_sigma": "0,1",
        "blur_probability": "0.3", "jpeg_quality": "40,95", "jpeg_probability": "0.4", "rand_augment": "2",
        "rand_augment_magnitude": "0.3", "mixup_alpha": "0.4", "cutmix_alpha": "1",
    }  # fmt: skip
    parsed, mixing = augmentation_flags.build("none", texts)
    expected = Augmentation(
        12.5, (3, -5), 2.0, 4, (0.7, 1.1), True, False, 20, (0.5, 1.5), "constant", 9, True, 2, 16, (0, 1),
        0.3, (40, 95), 0.4, 2, 0.3,
    )  # fmt: skip
    assert parsed == expected
    assert mixing == Mixing(0.4, 1)
    again = dict(part.split("=") for part in f"{parsed}, {mixing}".split(", "))
    assert augmentation_flags.build("none", again) == (parsed, mixing)


@pytest.mark.parametrize(
    ("preset", "texts", "message"),
    [
        ("wild", {}, "--augmentation must be one of original, forensic, robust, light, none, got 'wild'"),
        ("none", {"rotation_range": "far"}, "--rotation_range must be a number, got 'far'"),
        ("none", {"rotation_range": "-3"}, "--rotation_range=-3: must be a number from 0"),
        ("none", {"rotation_range": "1,2"}, "--rotation_range must be a number, got '1,2'"),
        ("none", {"zoom_range": "1,2,3"}, "--zoom_range=(1, 2, 3): must be two numbers"),
        ("none", {"brightness_range": "0.5"}, "--brightness_range must be two numbers like 0.5,1.5, or none"),
        ("none", {"horizontal_flip": "maybe"}, "--horizontal_flip must be true or false, got 'maybe'"),
        ("none", {"shift_pixels": "1.5"}, "--shift_pixels must be a whole number, got '1.5'"),
        ("none", {"cutmix_alpha": "-1"}, "--cutmix_alpha=-1: must be 0 (off) or a number"),
        ("original", {"fill_mode": "mirror"}, "--fill_mode='mirror': must be one of nearest, constant"),
        (
            "original",
            {"cval": "3"},
            "--cval has no effect with --augmentation=original unless --fill_mode=con",
        ),
        (
            "none",
            {"fill_mode": "wrap"},
            "--fill_mode has no effect with --augmentation=none unless --rotation_range or --width_",
        ),
        (
            "original",
            {"blur_probability": "0.5"},
            "unless --blur_sigma is given too; add it, or leave --blur_probability out",
        ),
        (
            "forensic",
            {"jpeg_probability": "0.5"},
            "effect with --augmentation=forensic unless --jpeg_quality",
        ),
        ("light", {"rand_augment_magnitude": "0.5"}, "unless --rand_augment is given too"),
    ],
)
def test_a_wrong_flag_or_one_without_effect_is_one_clear_line(preset, texts, message):
    with pytest.raises(UsageError) as error:
        augmentation_flags.build(preset, texts)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--crop_size=40",), "category: crop_size=40: larger than the images (32x32); choose at most 32"),
        (("--mixup_alpha=0.2", "--batch_size=1"), "mixup_alpha=0.2 mixes the images of a batch, and batch_s"),
        (("--rotation_range=colour=3",), "'colour' is not one of the tasks"),
        (("--horizontal_flip", "--epochs=1"), "'--epochs' is not one of the tasks"),
    ],
)
def test_impossible_options_are_refused_before_training(toy_shards, tmp_path, capsys, words, message):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *TOY_TRAINING, *words]
    assert run_command(train, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def cropped_run(toy_shards, tmp_path_factory):
    """One epoch with crops for one task, mixing and RandAugment; and what it printed."""
    workdir = tmp_path_factory.mktemp("cropped") / "run"
    words = [f"--data_dir={toy_shards}", f"--workdir={workdir}", *TOY_TRAINING, "--epochs=1"]
    words += ["--crop_size=category=24", "--cutmix_alpha=1", "--rand_augment=authenticity=1"]
    assert run_command(train, *words) == 0
    return workdir, words


@pytest.mark.slow
def test_the_effective_parameters_are_printed_and_in_train_flags(cropped_run, capsys):
    workdir, words = cropped_run
    text = (workdir / "train.flags").read_text()
    forensic = "horizontal_flip=true, vertical_flip=true, quarter_turns=true, shift_pixels=8"
    assert f"\n# augmentation of category: {forensic}, crop_size=24, cutmix_alpha=1\n" in text
    assert f"\n# augmentation of authenticity: {forensic}, rand_augment=1, cutmix_alpha=1\n" in text
    assert "\n--crop_size=category=24\n" in text
    capsys.readouterr()
    assert run_command(train, f"--flagfile={workdir}/train.flags", "--epochs=2") == 0
    assert f"augmentation of category: {forensic}, crop_size=24, cutmix_alpha=1" in capsys.readouterr().out
    assert run_command(train, *words, "--crop_size=category=23") == 1
    error = capsys.readouterr().err
    assert "crop_size=24, cutmix_alpha=1 before, # augmentation of category" in error
    assert "crop_size=23, cutmix_alpha=1 now" in error


@pytest.mark.slow
def test_a_preset_that_has_changed_since_does_not_go_unnoticed(cropped_run, capsys, monkeypatch):
    workdir, words = cropped_run
    monkeypatch.setitem(PRESETS, "forensic", PRESETS["light"])
    assert run_command(train, *words) == 1
    assert "holds a run with other settings (# augmentation of authenticity:" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluation_and_prediction_crop_the_centre(cropped_run, toy_shards):
    workdir, _ = cropped_run
    card = RunCard.load(workdir)
    assert [card.tasks[axis]["crop_size"] for axis in AXES] == [24, 0]
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    middle = tf.image.resize(images[:, 4:28, 4:28], (16, 16), antialias=False)
    predict = predictor.Predictor(workdir)
    np.testing.assert_array_equal(predict.inputs(images, "category"), middle)
    whole = tf.image.resize(images, (16, 16), antialias=True)
    np.testing.assert_array_equal(predict.inputs(images, "authenticity"), whole)
    probabilities = predict(images)
    for axis, pixels in (("category", middle), ("authenticity", whole)):
        np.testing.assert_allclose(probabilities[axis], predict.models[axis](pixels), atol=1e-5)


def test_validation_crops_the_centre():
    architecture = Architecture("small_cnn", "avg", 16, fine_tune="all")
    model = task_model.build("category", architecture, ("a", "b"), seed=0)
    spec = Augmentation(crop_size=24, rotation_range=30)
    one = task.Task("category", model, spec, tf.keras.optimizers.Adam())
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    logits = step.predict([one], {"images": tf.constant(images)}, micro_batch=4)["category"]
    middle = tf.image.resize(images[:, 4:28, 4:28], (16, 16))
    np.testing.assert_allclose(tf.nn.softmax(logits), model.saved_model(middle), atol=1e-5)


def test_help_needs_no_tensorflow():
    program = "import sys, deepduel.augmentation.flags; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
