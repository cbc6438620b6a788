import time

import numpy as np
import pytest
from PIL import ImageFont

from deepduel.decoding.split import Split
from deepduel.reading.options import ReadOptions
from deepduel.runs import pictures
from deepduel.runs.mistakes import Mistakes


@pytest.mark.parametrize(("count", "side"), [(1, 8), (5, 300)])
def test_images_stand_above_their_captions(count, side):
    images = np.full((count, side, side, 3), (77, 9, 200), np.uint8)  # no shade of the text's
    picture = pictures.captioned(images, [("fake predicted real", "a/very/" * 20 + "long.jpg")] * count)
    assert picture.shape[0] == 1 and picture.dtype == np.uint8
    assert (picture == images[0, 0, 0]).all(axis=-1).sum() == count * 200**2
    assert (picture[0, 202:236] < 100).any()  # the text


def test_a_confusion_matrix_darkens_with_the_share_of_its_row():
    counts = np.array([[9, 1], [0, 0]])
    picture = pictures.confusion(counts, ("animals", "human_faces"), counts.sum(1))
    assert picture.shape[0] == 1 and picture.dtype == np.uint8
    side = 300  # of a cell; its left upper corner has no text
    corners = [picture[0, -2 * side + 20, -2 * side + 20], picture[0, -2 * side + 20, -side + 20]]
    assert corners[0].sum() < corners[1].sum() < 3 * 255


@pytest.mark.parametrize("classes", [2, 10, 20])
def test_a_confusion_matrix_is_large_enough_to_read(classes):
    picture = pictures.confusion(np.eye(classes, dtype=int), ("a name",) * classes, np.ones(classes, int))
    assert min(picture.shape[1:3]) > 600 and max(picture.shape[1:3]) < 1_200


def test_of_many_classes_those_with_the_most_mistakes_are_drawn(toy_shards, monkeypatch):
    split = Split(toy_shards, "validation")
    drawn = []
    monkeypatch.setattr(pictures, "confusion", lambda *about: drawn.append(about))
    monkeypatch.setattr(
        Mistakes,
        "_labelled",
        lambda *_: (None, np.arange(30), np.eye(30)[np.arange(30) ^ (np.arange(30) > 27)]),
    )
    Mistakes(split, ReadOptions(8)).confusion(
        [], "category", tuple(f"class {number}" for number in range(30))
    )
    ((counts, names, totals),) = drawn
    assert counts.shape == (20, 20) and len(names) == 20 and totals.tolist() == [1] * 20
    assert {"class 28", "class 29"} <= set(names)


def test_the_worst_mistakes_are_the_most_confident(toy_shards, monkeypatch):
    split = Split(toy_shards, "validation")
    labels = split.labels["authenticity"]
    records = np.append(np.arange(len(split)), -1)  # and padding
    logits = np.eye(2)[np.append(labels, 0)] * 4
    logits[[3, 7]] = logits[[3, 7]][:, ::-1] * np.array([[1], [2]])  # 7 is the more confident mistake
    drawn = []
    monkeypatch.setattr(pictures, "captioned", lambda images, captions: drawn.append((images, captions)))
    mistakes = Mistakes(split, ReadOptions(8))
    mistakes.worst([(records, {"authenticity": logits})], "authenticity", ("real", "fake"))
    ((images, captions),) = drawn
    assert images.shape == (2, 32, 32, 3)
    assert [caption[2] for caption in captions] == [split.key(number).decode() for number in (7, 3)]
    right = [(records, {"authenticity": np.eye(2)[np.append(labels, 0)]})]
    assert mistakes.worst(right, "authenticity", ("real", "fake")) is None
    counts = []
    monkeypatch.setattr(pictures, "confusion", lambda table, names, totals: counts.append(table))
    mistakes.confusion([(records, {"authenticity": logits})], "authenticity", ("real", "fake"))
    assert counts[0].sum() == len(split)
    assert counts[0].trace() == len(split) - 2


@pytest.mark.parametrize("text", ["x" * 3_900, "wide " * 100, "a\nb\x1b[31m.jpg", "\u202egpj", "", "i"])
def test_any_text_is_cut_to_its_width_in_no_time(text):
    font = ImageFont.load_default(14)
    start = time.process_time()
    cut = pictures._cut(text, 168, font)
    assert time.process_time() - start < 0.5
    assert font.getlength(cut) <= 168
    assert cut.isprintable()
    if cut.startswith("…"):
        assert text.endswith(cut[1:])
        assert font.getlength(text[-len(cut) :]) > 168 - 14  # no more is cut off than need be


def test_names_of_any_length_have_a_place_in_a_confusion_matrix():
    picture = pictures.confusion(np.eye(2), ("x" * 50_000, "a\nb"), np.ones(2))
    assert picture.shape[2] < 1_000
