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
    assert (picture == images[0, 0, 0]).all(axis=-1).sum() == count * 168**2
    assert (picture[0, 170:200] < 100).any()  # the text


def test_a_confusion_matrix_darkens_with_the_share_of_its_row():
    picture = pictures.confusion(np.array([[9, 1], [0, 0]]), ("animals", "human_faces"))
    assert picture.shape[0] == 1 and picture.dtype == np.uint8


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
    monkeypatch.setattr(pictures, "confusion", lambda table, names: counts.append(table))
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
    picture = pictures.confusion(np.eye(2), ("x" * 50_000, "a\nb"))
    assert picture.shape[2] < 1_000
