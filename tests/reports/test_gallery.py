"""Galleries: the right images, under the right names, and heat where the evidence is."""

import base64
import io
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from deepduel.evaluation import predictions
from deepduel.prediction.predictor import Predictor
from deepduel.reading import pipeline
from deepduel.reports import confusion_matrix, gallery, heat_maps, thumbnail
from tests.helpers.fake_runs import write_run
from tfrecords_tools import cli, convert


def _bright_spot_model(nested: bool = True) -> keras.Model:
    """Class 1 when there is much red: the evidence lies where the red is."""
    pixels = keras.Input((32, 32, 3))
    maps = layers.Conv2D(2, 4, strides=4, use_bias=False, name="maps")(pixels)
    extractor = keras.Model(pixels, layers.GlobalAveragePooling2D()(maps), name="extractor")
    kernel = np.zeros((4, 4, 3, 2), np.float32)
    kernel[:, :, 0, 0] = 1 / 16
    extractor.get_layer("maps").set_weights([kernel])
    features = keras.Input((2,))
    head = keras.Model(features, layers.Dense(2)(features), name="head")
    head.layers[-1].set_weights([np.array([[-1, 1], [0, 0]], np.float32), np.zeros(2, np.float32)])
    if not nested:
        return extractor
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, layers.Softmax()(head(extractor(inputs))))


@pytest.mark.parametrize("corner", [(0, 0), (0, 24), (24, 0), (12, 16)])
def test_heat_lies_where_the_evidence_is(corner):
    image = np.zeros((1, 32, 32, 3), np.float32)
    image[0, corner[0] : corner[0] + 8, corner[1] : corner[1] + 8, 0] = 255
    heat = gallery.grad_cam(_bright_spot_model(), image)[0]
    assert heat.shape == (8, 8) and heat.max() == pytest.approx(1) and heat.min() == 0
    hot = np.argwhere(heat > 0.5)
    assert (hot.min(0) * 4 == corner).all() and ((hot.max(0) + 1) * 4 == np.add(corner, 8)).all()


def test_an_image_without_evidence_has_no_heat_and_a_model_of_another_form_none():
    assert gallery.grad_cam(_bright_spot_model(), np.zeros((1, 32, 32, 3), np.float32)).max() == 0
    assert gallery.grad_cam(_bright_spot_model(nested=False), np.zeros((1, 32, 32, 3), np.float32)) is None


@pytest.fixture(scope="module")
def predicted(tmp_path_factory, toy_shards):
    predictor = Predictor(write_run(tmp_path_factory.mktemp("gallery") / "run", toy_shards))
    split, labels = predictions.open_split(toy_shards, "validation", predictor)
    return predictions.predict(
        split, labels, predictor, pipeline.ReadOptions(20, predictor.card.size)
    ), predictor


def test_galleries_hold_the_extremes_with_their_keys(predicted):
    predictions, predictor = predicted
    drawn = gallery.galleries(predictions, predictor, "category")
    galleries = {each["title"]: each["images"] for each in drawn}
    probabilities, labels = predictions.probabilities["category"], predictions.labels["category"]
    right = probabilities.argmax(1) == labels
    worst = galleries["Mistakes, most confident first"]
    assert len(worst) == (~right).sum()
    assert all(image["truth"] != image["predicted"] for image in worst)
    assert [image["probability"] for image in worst] == pytest.approx(
        np.sort(probabilities[~right].max(1))[::-1].tolist()
    )
    assert all(
        image["key"].split("/")[2] == image["truth"] for images in galleries.values() for image in images
    )
    sure = galleries["Most confident correct predictions by class"]
    for number, name in enumerate(predictions.classes["category"]):
        expected = np.sort(probabilities[right & (labels == number)].max(1))[::-1][:6]
        shown = [image["probability"] for image in sure if image["truth"] == name]
        assert shown == pytest.approx(expected.tolist())
    assert galleries["Least confident predictions"][0]["probability"] == pytest.approx(
        probabilities.max(1).min()
    )
    assert sum(image["heat"] is not None for image in worst) == min(gallery.EXPLAINED, len(worst))


def test_mistakes_beyond_the_pictured_ones_are_listed_without_and_counted(predicted, monkeypatch):
    monkeypatch.setattr(gallery, "PICTURED", 3)
    monkeypatch.setattr(gallery, "LISTED", 5)
    monkeypatch.setattr(gallery, "_DECODED", 2)
    mistakes = gallery.galleries(*predicted, "category")[0]
    assert [bool(image["picture"]) for image in mistakes["images"]] == [True] * 3 + [False] * 2
    assert re.fullmatch(r"The most confident 5 of \d+ mistakes; predictions.csv .*", mistakes["note"])


def test_examples_are_mistakes_of_their_pair(predicted):
    predictions, predictor = predicted
    labels, answers = predictions.labels["category"], predictions.probabilities["category"].argmax(1)
    counts = np.zeros((len(predictions.classes["category"]),) * 2, int)
    np.add.at(counts, (labels, answers), 1)
    pairs = confusion_matrix.confused_pairs(counts, 2)
    names = predictions.classes["category"]
    shown = gallery.examples(predictions, predictor, "category", pairs)
    for pair in pairs:
        images = shown[pair.truth, pair.predicted]
        assert len(images) == min(pair.images, gallery.PER_PAIR)
        assert {(image["truth"], image["predicted"]) for image in images} == {
            (names[pair.truth], names[pair.predicted])
        }


def test_pictures_are_those_of_their_keys(predicted):
    predictions, predictor = predicted
    image = gallery.galleries(predictions, predictor, "category")[0]["images"][0]
    split = predictions.split
    number = next(n for n in range(len(split)) if split.key(n).decode() == image["key"])
    shown = Image.open(io.BytesIO(base64.b64decode(image["picture"].partition(",")[2])))
    original = (
        Image.open(io.BytesIO(split.image(number)))
        .convert("RGB")
        .resize(shown.size, Image.Resampling.NEAREST)
    )
    assert np.abs(np.asarray(shown, float) - np.asarray(original, float)).mean() < 6


def test_large_pictures_shrink_and_small_ones_grow():
    for size, expected in (((400, 200), (160, 80)), ((20, 40), (80, 160)), ((100, 100), (100, 100))):
        url = thumbnail.data_url(np.zeros((*size[::-1], 3), np.uint8))
        assert Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size == expected


def test_each_image_has_heat_maps_of_its_own_whatever_its_name(tmp_path):
    maps = heat_maps.HeatMaps(None, tmp_path)
    images = "a/b.jpg", "a_b.jpg", "a/b.jpg", "ü" * 300 + ".jpg", "y" * 400 + "ü" * 300 + ".jpg", "…"
    stems = [pathlib.Path(maps._stem(image)) for image in images]
    assert [stem.name for stem in stems[:3]] == ["a_b.jpg", "a_b.jpg-2", "a_b.jpg-3"]
    assert len(set(stems)) == len(images) and {stem.parent for stem in stems} == {tmp_path}
    assert all(len(stem.name.encode()) < 120 for stem in stems) and stems[3].name.endswith("ü.jpg")


def test_the_command_that_leaves_doubted_images_out_has_flags_that_exist():
    deepduel, name, *words = gallery._EXCLUDING.split()
    assert (deepduel, name) == ("deepduel", "convert")
    assert cli.parsed(convert.FLAGS, [name, *words]).exclude == "@doubted_labels.csv"
