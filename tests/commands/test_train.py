import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from deepduel import train
from deepduel.decoding.image import DecodeOptions, libraries
from deepduel.networks.run_card import RunCard
from deepduel.prediction.predictor import Predictor
from deepduel.runs import run_options, task_flags, train_flags
from deepduel.runs.options import check_sharing
from deepduel.training import devices
from tests.conftest import TOY_TRAINING, history_rows, run_command
from tfrecords_tools.errors import UsageError

PROJECT = pathlib.Path(__file__).parents[2]
FLAGFILES = sorted([*PROJECT.glob("experiments/*.flags"), *PROJECT.glob("deepduel/presets/*.flags")])


def test_a_run_leaves_its_models_history_and_card(toy_run, toy_shards):
    for task in ("category", "authenticity"):
        names = sorted(path.name for path in (toy_run / task).iterdir())
        assert names == ["best.keras", "epoch-01.keras", "epoch-02.keras"]
    history = history_rows(toy_run)
    assert [row["epoch"] for row in history] == ["1", "2"]
    for name in ("category_loss", "val_authenticity_accuracy", "images_per_second", "input_wait_share"):
        assert all(float(row[name]) >= 0 for row in history)
    card = RunCard.load(toy_run)
    assert card.size == (32, 32)
    assert card.libraries == libraries()
    assert card.tasks["authenticity"] == {
        "classes": ["real", "fake"],
        "image_size": 16,
        "crop_size": 0,
        "initial_weights": {"name": "none", "sha256": ""},
    }
    assert card.data_source == json.loads((toy_shards / "manifest.json").read_text())["source"]


@pytest.mark.slow
def test_a_run_at_native_resolution_is_predicted_at_native_resolution(toy_shards, tmp_path):
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *TOY_TRAINING, "--tasks=category"
    assert run_command(train, *words, "--native_resolution") == 0
    assert Predictor(tmp_path / "run").decoding == DecodeOptions((16, 16), "native")  # of 32x32 pixels


def best_epoch(run, task) -> tuple[float, int]:
    """(highest validation accuracy, epoch): of equal epochs that of the lowest loss, of these the first."""
    rows = [
        (float(row[f"val_{task}_accuracy"]), -float(row[f"val_{task}_loss"]), -epoch)
        for epoch, row in enumerate(history_rows(run), 1)
    ]
    accuracy, _, epoch = max(rows)
    return accuracy, -epoch


def test_best_is_the_epoch_with_the_best_validation_accuracy(toy_run):
    for task in ("category", "authenticity"):
        best = toy_run / task / f"epoch-{best_epoch(toy_run, task)[1]:02d}.keras"
        assert (toy_run / task / "best.keras").read_bytes() == best.read_bytes()


def _events(toy_run, run):
    events = EventAccumulator(str(toy_run / "tensorboard" / run), size_guidance={"tensors": 0})
    events.Reload()
    return events


def test_tensorboard_has_training_and_validation_under_the_same_tags(toy_run):
    train_events, validation = _events(toy_run, "train"), _events(toy_run, "validation")
    shared = {f"epoch_{measure}/{task}" for measure in ("accuracy", "loss", "roc_auc")
              for task in ("category", "authenticity")}  # fmt: skip
    assert shared <= set(train_events.Tags()["tensors"]) & set(validation.Tags()["tensors"])
    assert {"training_images/category", "epoch_speed/images_per_second"} <= set(
        train_events.Tags()["tensors"]
    )
    assert {"validation_confusion/category", "epoch_speed/left_out"} <= set(validation.Tags()["tensors"])
    accuracy = validation.Tensors("epoch_accuracy/category")
    assert [point.step for point in accuracy] == [168, 336]
    written = [float(tf.make_ndarray(point.tensor_proto)) for point in accuracy]
    stored = [float(row["val_category_accuracy"]) for row in history_rows(toy_run)]
    assert written == pytest.approx(stored)


def test_tensorboard_describes_the_run_once(toy_run):
    events = _events(toy_run, ".")
    tags = set(events.Tags()["tensors"])
    assert {"about", "flags", "custom_scalars__config__"} <= tags
    about = events.Tensors("about")[0].tensor_proto.string_val[0].decode()
    named = set(re.findall(r"`([a-z_]+)/(?:TASK|…)`", about))
    for run in ("train", "validation"):
        groups = {tag.partition("/")[0] for tag in _events(toy_run, run).Tags()["tensors"]}
        assert groups - {"step_roc_auc", "step_skipped_steps"} <= named, "a card that is not explained"
    layers = {node.name for node in tf.compat.v1.GraphDef.FromString(events.Graph().SerializeToString()).node}
    assert {"category/probabilities", "authenticity/probabilities"} <= layers


def test_tensorboard_lists_flags_that_differ_from_their_defaults_first(toy_run):
    content = _events(toy_run, ".").SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    differing = {info.name for info in experiment.hparam_infos if info.differs}
    assert {"backbone", "batch_size", "epochs"} <= differing
    assert not {"workdir", "data_dir", "schedule", "seed"} & differing
    tags = [metric.name.tag for metric in experiment.metric_infos]
    assert set(tags) <= set(_events(toy_run, "validation").Tags()["tensors"])
    assert {metric.name.group for metric in experiment.metric_infos} == {"validation"}


def test_train_flags_reproduces_the_run(toy_run):
    train.FLAGS.unparse_flags()
    train.FLAGS(["train", f"--flagfile={toy_run}/train.flags"])
    text = (toy_run / "train.flags").read_text()
    settings, *augmentations = text.split("# augmentation of ")
    assert run_options.flagfile(train.FLAGS) == settings and len(augmentations) == 2


@pytest.mark.slow
def test_the_precision_that_auto_picks_stays_the_runs(toy_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "fastest_precision", lambda: "mixed_bfloat16")
    words = (
        f"--data_dir={toy_shards}",
        f"--workdir={tmp_path}/run",
        *TOY_TRAINING,
        "--precision=category=auto",
    )
    assert run_command(train, *words) == 0
    text = (tmp_path / "run" / "train.flags").read_text()
    assert "--precision=category=mixed_bfloat16\n" in text and "--precision=category=auto" not in text
    monkeypatch.setattr(devices, "fastest_precision", lambda: "float32")  # another machine
    assert run_command(train, *words, "--epochs=2") == 1
    assert (
        "--precision=category=mixed_bfloat16 before, --precision=category=float32 now"
        in capsys.readouterr().err
    )


def test_a_finished_run_is_left_alone(toy_run, toy_shards, capsys):
    before = {path: path.stat().st_mtime_ns for path in toy_run.rglob("*.keras")}
    words = f"--data_dir={toy_shards}", f"--workdir={toy_run}", *TOY_TRAINING, "--epochs=2"
    assert run_command(train, *words) == 0
    output = capsys.readouterr().out
    assert "has finished its 2 epochs; raise --epochs" in output
    for task in ("category", "authenticity"):
        accuracy, epoch = best_epoch(toy_run, task)
        best = f"{accuracy:.2%} at epoch {epoch}, the best one"
        assert f"{task}: validation accuracy {best}: {toy_run}/{task}/best.keras" in output
    assert {path: path.stat().st_mtime_ns for path in toy_run.rglob("*.keras")} == before


def test_a_run_of_other_settings_is_refused(toy_run, toy_shards, capsys):
    words = f"--data_dir={toy_shards}", f"--workdir={toy_run}", *TOY_TRAINING, "--label_smoothing=0.5"
    assert run_command(train, *words) == 1
    error = capsys.readouterr().err
    assert "other settings (--label_smoothing=0 before, --label_smoothing=0.5 now)" in error


def test_a_run_of_an_earlier_version_is_resumed(toy_run, toy_shards, tmp_path, capsys):
    """Its train.flags does not name the flags that came later: they had their defaults."""
    folder = shutil.copytree(toy_run, tmp_path / "run")
    lines = (folder / "train.flags").read_text().splitlines()
    (folder / "train.flags").write_text("\n".join(x for x in lines if not x.startswith("--precision=")))
    words = f"--data_dir={toy_shards}", f"--workdir={folder}", *TOY_TRAINING, "--epochs=2"
    assert run_command(train, *words, "--precision=mixed_bfloat16") == 1
    assert "--precision=float32 before, --precision=mixed_bfloat16 now" in capsys.readouterr().err
    assert run_command(train, *words) == 0


def test_a_folder_of_other_things_is_refused(toy_shards, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("all of it")
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}", *TOY_TRAINING
    assert run_command(train, *words) == 1
    assert "is not empty and holds no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("--backbone=resnet51", 2, "there is no backbone 'resnet51'"),
        ("--backbone=colour=vgg16", 2, "'colour' is not one of the tasks (authenticity, category)"),
        ("--tasks=colour", 2, "has no label axis 'colour'; it has authenticity, category"),
        ("--tasks=category,category", 2, "names a task twice"),
        ("--tasks=", 2, "--tasks names no task; "),
        ("--augmentation=wild", 2, "--augmentation must be one of "),
        ("--fine_tune=some", 2, "fine_tune must be none, all or last:N, got 'some'"),
        ("--fine_tune=last:0", 2, "fine_tune must be none, all or last:N"),
        ("--fine_tune=last:99", 2, "small_cnn has only 2 layers with weights"),
        ("--batch_norm=some", 2, "batch_norm must be auto, frozen or trained"),
        ("--optimizer=magic", 2, "optimizer must be one of adam, adamw"),
        ("--schedule=linear", 2, "schedule must be constant, cosine, onecycle"),
        ("--warmup=soon", 2, "warmup must be like 0, 500steps or 0.5epochs"),
        ("--clip_norm=-1", 2, "clip_norm must be a number from 0 on"),
        ("--ema=1", 2, "ema must be from 0 to below 1"),
        ("--monitor=luck", 2, "monitor must be one of accuracy, auc, loss"),
        ("--class_weights=fake=2", 2, "'fake' is not a label (animals, human_faces, vehicles)"),
        ("--early_stopping=-1", 2, "early_stopping must be a number of epochs, or 0 for never"),
        ("--profile_steps=3:2", 2, "--profile_steps must be FIRST:LAST, counted from 1"),
        ("--image_size=big", 2, "--image_size must be a number, got 'big'"),
        ("--learning_rate=0", 2, "learning_rate must be above 0"),
        ("--epochs=0", 2, "epochs must be at least 1"),
        ("--batch_size=0", 2, "batch_size must be at least 1"),
        ("--micro_batch=0", 2, "micro_batch must be at least 1"),
        ("--train_split=other", 2, "no split 'other'"),
        ("--train_split=test", 1, "no image of split 'test' has a label"),
        ("--weights=nowhere.keras", 1, "there is no such file; give imagenet, none"),
        ("--fit=stretch", 2, "value should be one of <crop|pad>"),
        ("--native_resolution", 2, "native resolution: the augmentation of authenticity rotates"),
        ("--native_resolution --host_size=32", 2, "leave --host_size and --fit out"),
        (
            "--native_resolution --augmentation=none --image_size=8 --image_size=category=16",
            2,
            "give both one --image_size",
        ),
        ("--data_dir=nowhere", 1, "there is no such folder of shards"),
        ("--no_such_flag", 2, "Unknown command line flag 'no_such_flag'"),
        ("extra", 2, "does not take the argument 'extra'"),
    ],
)
def test_bad_input_is_one_clear_line(toy_shards, tmp_path, capsys, word, code, message):
    words = [f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", "--backbone=small_cnn", *word.split()]
    assert run_command(train, *words) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_damage_in_the_data_is_one_clear_line(toy_shards, tmp_path, capsys):
    folder = shutil.copytree(toy_shards, tmp_path / "shards")
    shard = next(folder.glob("*-train.*-00001-of-00003"))
    data = bytearray(shard.read_bytes())
    data[2000:-2000] = bytes(len(data) - 4000)
    shard.write_bytes(data)
    words = f"--data_dir={folder}", f"--workdir={tmp_path}/run", *TOY_TRAINING
    assert run_command(train, *words) == 1
    error = capsys.readouterr().err
    assert f"{shard.name}, record" in error
    assert "does not decode" in error
    assert "Traceback" not in error


def test_help_does_not_wait_for_tensorflow():
    code = (
        "import sys; from deepduel import train; sys.argv = ['train', '--help']; assert train.entry() == 0;"
        "sys.argv = ['train', '--oops']; assert train.entry() == 2; assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--micro_batch=VALUE" in done.stdout
    assert "Unknown command line flag 'oops'" in done.stderr


def test_every_flag_is_in_one_group_of_the_help():
    names = [
        name
        for groups in (train_flags.USUAL, train_flags.FURTHER)
        for group in groups.values()
        for name in group
    ]
    assert sorted(names) == sorted(set(train.FLAGS) - {"flagfile", "undefok"})
    assert list(train_flags.USUAL) == list(train_flags.FURTHER)
    assert 18 <= sum(map(len, train_flags.USUAL.values())) <= 25


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_every_flagfile_is_accepted(path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    from deepduel import augment
    from deepduel.networks import task_model

    train.FLAGS.unparse_flags()
    train.FLAGS(["train", f"--flagfile={path}", "--data_dir=SHARDS", "--workdir=RUN"])
    task_flags.replace_auto_precision(train.FLAGS)
    axes = train.FLAGS.tasks or ["label"]  # presets are for any data
    tasks = task_flags.tasks(train.FLAGS, axes)
    assert [task.axis for task in tasks] == axes
    assert all(isinstance(task.augmentation, augment.Augmentation) for task in tasks)
    if train.FLAGS.shared_backbone:
        check_sharing(tasks)
    if "original" in path.name:
        for task in tasks:
            architecture = task.architecture
            assert (architecture.backbone, architecture.head) == task_model.ORIGINAL[task.axis]
            assert task.augmentation == augment.PRESETS["original"]


def test_a_backbone_is_chosen_for_all_tasks_or_for_none():
    options = flags.FlagValues()
    train_flags.define(options)
    options(["train", "--data_dir=x", "--workdir=y", "--backbone=category=vgg16"])
    with pytest.raises(UsageError, match="for all tasks or for none; .*as --backbone=authenticity=NAME"):
        task_flags.tasks(options, ["authenticity", "category"])


def test_a_later_value_wins_over_an_earlier_one():
    axes = ["category", "authenticity"]
    assert task_flags.per_task("x", ["a", "category=b"], axes) == {"category": "b", "authenticity": "a"}
    assert task_flags.per_task("x", ["category=b", "a"], axes) == {"category": "a", "authenticity": "a"}
    paths = {"category": "/runs/rate=1/best.keras", "authenticity": "runs/rate=0.1"}
    values = [paths["authenticity"], f"category={paths['category']}"]
    assert task_flags.per_task("start_from", values, axes) == paths
    with pytest.raises(UsageError, match="--x: no value for authenticity"):
        task_flags.per_task("x", ["category=b"], axes)


def test_a_run_on_other_data_is_refused(toy_run, toy_folder, tmp_path, capsys):
    from tfrecords_tools import convert

    shutil.copytree(toy_folder, tmp_path / "images")
    next((tmp_path / "images" / "train" / "real" / "animals").iterdir()).unlink()
    words = f"--input_dir={tmp_path}/images", f"--output_dir={tmp_path}/shards", "--workers=1", "--metadata="
    assert run_command(convert, *words) == 0
    words = f"--data_dir={tmp_path}/shards", f"--workdir={toy_run}", *TOY_TRAINING, "--epochs=2"
    assert run_command(train, *words) == 1
    assert "holds a run on other data" in capsys.readouterr().err
