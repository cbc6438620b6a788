"""A run without flags follows the images and the machine, says why, and keeps its choice when resumed."""

import shlex

import pytest

from deepduel import train
from deepduel.runs import choices, run_options
from tests.helpers import folders
from tests.helpers.conversions import convert_to


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """30 images of 120 pixels, of two classes."""
    folder = tmp_path_factory.mktemp("choices")
    folders.make(folder / "images", {"cats": 20, "dogs": 10}, size=120)
    assert convert_to(folder / "shards", folder / "images") == 0
    return folder / "shards"


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No ImageNet weights on this machine, and no way to them."""

    def refuse(*_):
        raise ConnectionRefusedError

    monkeypatch.setattr(choices.socket, "create_connection", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def _chosen(data_dir, workdir, *words: str):
    """(the parsed flags after the choice, the lines that explain it)."""
    train.FLAGS.unparse_flags()
    for name in train.FLAGS:
        train.FLAGS[name].unparse()
    train.FLAGS(["train", f"--data_dir={data_dir}", f"--workdir={workdir}", *words])
    return train.FLAGS, choices.choose(train.FLAGS, ["category"])


def test_a_small_network_is_trained_where_there_are_no_weights(shards, tmp_path):
    options, lines = _chosen(shards, tmp_path / "run")
    assert (options.backbone, options.head, options.image_size) == (["small_cnn"], ["avg"], ["96"])
    assert (options.batch_size, options.epochs, options.schedule) == (32, "40", ["cosine"])
    assert len(lines) == 1 + 6
    assert "no ImageNet weights are in" in lines[1] and "the median image has 120 pixels" in lines[2]


def test_weights_on_this_machine_are_used(shards, tmp_path):
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / choices.WEIGHTS_FILE).touch()
    options, lines = _chosen(shards, tmp_path / "run")
    assert (options.backbone, options.image_size) == ([choices.PRETRAINED], ["224"])
    assert (options.cache, options.views) == ("features", 3)
    assert "with ImageNet weights" in lines[1]


@pytest.mark.parametrize(
    "word",
    [
        "--cluster=a:1,b:1",
        "--data_workers=cpu1:5050",
        "--reader=sequential",
        "--cache=ram",
        "--fine_tune=all",
        "--mixup_alpha=0.2",
    ],
)
def test_features_are_stored_only_where_nothing_that_is_given_speaks_against_it(shards, tmp_path, word):
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / choices.WEIGHTS_FILE).touch()
    words = [word, "--worker=0/2"] if "cluster" in word else [word]
    options, _ = _chosen(shards, tmp_path / "run", *words)
    assert (options.backbone, options.views) == ([choices.PRETRAINED], None)
    assert run_options.from_flags(options).features is None
    options, _ = _chosen(shards, tmp_path / "run", "--cache=features:elsewhere")
    assert (run_options.from_flags(options).features, options.views) == ("elsewhere", 3)


def test_small_images_are_not_enlarged_for_imagenets_networks(toy_shards, tmp_path):
    options, lines = _chosen(toy_shards, tmp_path / "run")
    assert (options.backbone, options.image_size) == (["small_cnn"], ["32"])
    assert "images of 32 pixels are too small" in lines[1]


def test_a_flag_replaces_one_choice_and_a_backbone_all(shards, tmp_path):
    options, lines = _chosen(shards, tmp_path / "run", "--epochs=7", "--batch_size=8")
    assert (options.backbone, options.epochs, options.batch_size) == (["small_cnn"], "7", 8)
    assert not any("--epochs" in line or "--batch_size" in line for line in lines)
    options, lines = _chosen(shards, tmp_path / "run", "--backbone=vgg16")
    assert (options.head, options.epochs, options.batch_size) == (["avg,dropout:0.5,dense:512"], "1", 512)
    assert lines == []


def test_a_run_that_was_begun_keeps_its_choice(shards, tmp_path):
    workdir = tmp_path / "run"
    first = run_options.flagfile(_chosen(shards, workdir)[0])
    workdir.mkdir()
    (workdir / "train.flags").write_text(first)
    (tmp_path / "keras" / "models").mkdir(parents=True)
    (tmp_path / "keras" / "models" / choices.WEIGHTS_FILE).touch()  # downloaded meanwhile
    options, lines = _chosen(shards, workdir)
    assert (run_options.flagfile(options), lines) == (first, [])
    options, _ = _chosen(shards, workdir, "--epochs=90")
    assert (options.backbone, options.epochs) == (["small_cnn"], "90")


def test_a_flagfile_begins_with_a_command_for_the_shell(shards, tmp_path):
    first = run_options.flagfile(_chosen(shards, tmp_path / "my run")[0]).partition("\n")[0]
    flagfile = f"--flagfile={tmp_path}/my run/train.flags"
    assert shlex.split(first) == ["#", "python", "-m", "deepduel.train", flagfile]


def test_authenticity_is_learnt_without_interpolation():
    names = [
        choice.flags for choice in choices._for_images(1000, 32, ["authenticity", "category"], features=True)
    ]
    assert {"augmentation": ["authenticity=forensic", "category=light"]} in names
