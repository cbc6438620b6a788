"""Confusion matrices: every count in place, and names that can be read at any number of classes."""

import base64
import csv
import io
import re

import numpy as np
import pytest

from deepduel.reports import confusion_matrix


def counts(classes: int, seed: int = 0) -> np.ndarray:
    table = np.random.default_rng(seed).integers(0, 3, (classes, classes))
    return table + 50 * np.eye(classes, dtype=int)


def drawn_texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>(?:<title>.*?</title>)?([^<]*)</text>", svg)


@pytest.mark.parametrize(
    ("classes", "drawn"),
    [
        (2, {"any": 2}),
        (10, {"any": 10}),
        (37, {"wide": 37, "narrow": 10}),
        (1000, {"wide": 25, "narrow": 10}),
    ],
)
def test_as_many_classes_are_drawn_as_each_width_has_room_for(classes, drawn):
    names = [f"class {number}" for number in range(classes)]
    drawings = confusion_matrix.drawings(counts(classes), names)
    assert {each.shown: len(re.findall(r'class="right"', each.svg)) for each in drawings} == drawn
    for each in drawings:
        width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', each.svg).groups())
        places = [float(x) for x in re.findall(r' x="([\d.]+)"', each.svg)]
        assert max(places) < width and height < 1.2 * width
        texts = drawn_texts(each.svg)
        shown = sum(text.startswith("class ") for text in texts)
        assert shown == 2 * drawn[each.shown]  # every row and column is named in full


def test_all_counts_of_a_row_are_drawn_also_those_of_classes_without_a_column():
    table = counts(60)
    narrow = confusion_matrix.drawings(table, [f"c{number}" for number in range(60)])[1]
    rows = {}
    for name, value in re.findall(r"<title>true (c\d+), predicted [^:]*: ([\d,]+) ", narrow.svg):
        rows[name] = rows.get(name, 0) + int(value.replace(",", ""))
    assert len(rows) == 10
    assert all(total == table[int(name[1:])].sum() for name, total in rows.items())
    assert "10 of 60 classes" in narrow.caption and confusion_matrix.OTHERS in narrow.svg


def test_the_classes_of_the_most_confused_pairs_are_chosen_and_neighbours():
    table = 50 * np.eye(100, dtype=int)
    table[7, 93], table[93, 7], table[20, 60] = 12, 9, 8
    assert confusion_matrix.most_confused(table, 4) == [7, 20, 60, 93]
    order = confusion_matrix.grouped(table, [7, 20, 60, 93])
    assert abs(order.index(7) - order.index(93)) == 1 and abs(order.index(20) - order.index(60)) == 1
    pairs = confusion_matrix.confused_pairs(table, 10)
    assert [(pair.truth, pair.predicted, pair.images) for pair in pairs] == [
        (7, 93, 12), (93, 7, 9), (20, 60, 8)
    ]  # fmt: skip
    assert pairs[0].share == pytest.approx(12 / 62)


def test_a_matrix_without_mistakes_or_with_an_empty_class_is_drawn():
    table = 5 * np.eye(50, dtype=int)
    table[3, 3] = 0
    drawings = confusion_matrix.drawings(table, [str(number) for number in range(50)])
    assert all("nan" not in each.svg for each in drawings)
    assert confusion_matrix.confused_pairs(table, 10) == []


def test_long_names_are_broken_and_escaped_and_whole_in_their_title():
    long = "a very long name of a <class>, longer than there is room for in any picture of this size"
    svg = confusion_matrix.drawings([[3, 1], [0, 4]], [long, "b"])[0].svg
    assert "<class>" not in svg
    assert svg.count("<title>a very long name of a &lt;class&gt;") >= 2
    assert any(text.endswith("…") for text in drawn_texts(svg))


def test_large_counts_are_shortened_to_the_width_of_their_cell():
    table = counts(10) * 12_345
    texts = drawn_texts(confusion_matrix.drawings(table, [f"c{number}" for number in range(10)])[0].svg)
    assert "617k" in texts and not any(len(text) > 5 for text in texts if text[0].isdigit())


def test_the_csv_file_has_every_count_and_no_formulas():
    table = [[3, 1], [0, 4]]
    url = confusion_matrix.csv_of(table, ["=SUM(A1)", "b,c"])
    rows = list(csv.reader(io.StringIO(base64.b64decode(url.partition(",")[2]).decode())))
    assert rows == [
        ["true", "predicted", "images"],
        ["'=SUM(A1)", "'=SUM(A1)", "3"],
        ["'=SUM(A1)", "b,c", "1"],
        ["b,c", "b,c", "4"],
    ]
