"""The report: one file that refers to no other, and that names from the data cannot break."""

import base64
import hashlib
import importlib.resources
import re

import numpy as np
import pytest

from deepduel.evaluation import bootstrap, calibration, curves, metrics, metrics_document, robustness
from deepduel.reports import charts, report_page
from tests.helpers.pages import BalancedPage


def task(classes=("real", "fake"), count=300, seed=0) -> dict:
    """A task's part of metrics.json, from random predictions."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), count)
    probabilities = rng.dirichlet(np.ones(len(classes)), count)
    predicted = probabilities.argmax(1)
    return {
        "classes": list(classes),
        "positive": classes[1] if len(classes) == 2 else None,
        "images": count,
        "unlabelled": 3,
        "overall": {
            **metrics.score(labels, probabilities, classes).document(),
            "intervals": bootstrap.intervals(labels, probabilities, replicates=100),
        },
        "class_scores": metrics.class_scores(labels, predicted, classes),
        "confusion": metrics.confusion(labels, predicted, len(classes)).tolist(),
        "groups": {},
        "cells": {
            "real/<b>cats</b>": {
                "images": 7,
                "accuracy": 1.0,
                "interval": (0.64, 1.0),
                "mean_probability": 0.9,
            }
        },
        "apart_from_copies": metrics.score(labels[5:], probabilities[5:], classes).document(),
        "calibration": calibration.document(labels, probabilities, np.arange(count) % 5 == 0),
        "shortcuts": {
            "images": count, "chance": 0.5, "balanced_accuracy": {"file size": 0.5, "all": 0.52},
            "model": 0.6, "alarm": False,
        },
        "curves": curves.document(labels, probabilities),
    }  # fmt: skip


def document(**tasks) -> dict:
    return {
        "format": metrics_document.FORMAT, "format_version": 1, "split": "validation", "records": 303,
        "left_out": 0,
        "tasks": tasks or {"authenticity": task(), "category": task(("a", "b", "c"))},
        "ungrouped": {"generator": 4},
        "duplicates": {
            "within": 0, "across": {"train": 2},
            "near": {"distance": 4, "within": 1, "across": {"train": 5}, "examples": []},
        },
        "about": {"run": "<run>", "data_name": "toy", "date": "2026-01-01", "versions": {"keras": "3"}},
    }  # fmt: skip


def test_the_page_is_well_formed_and_refers_to_nothing_outside_itself():
    page = report_page.render(document())
    parser = BalancedPage(page)
    assert parser.open == []
    assert parser.links and all(link.startswith(("#", "data:")) for link in parser.links)
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_policy_of_the_page_allows_its_one_script_and_nothing_else():
    page = report_page.render(document())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert f"script-src 'sha256-{digests[0]}';" in policy and len(digests) == 1
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"<[^>]* on\w+=", page)


def test_names_cannot_close_the_script_or_an_attribute():
    bad = '"></script><script>alert(1)</script>'
    image = {
        "key": bad,
        "truth": bad,
        "predicted": bad,
        "probability": 0.5,
        "picture": "data:,",
        "heat": None,
    }
    galleries = {"x": [{"title": "Mistakes", "images": [image] * 30}]}
    page = report_page.render(document(x=task((bad, "b", "c"))), galleries)
    assert bad not in page and page.count("<script>") == 1
    assert BalancedPage(page).open == []


def test_pictures_are_there_when_the_page_is_printed():
    for name in ("report.html", "comparison.html"):
        assert "loading=" not in importlib.resources.files("deepduel.reports").joinpath(name).read_text()


def test_every_class_has_its_scores_and_the_class_it_is_mistaken_for():
    three = task(("a", "b", "c"))
    three["confusion"] = [[5, 3, 0], [0, 4, 1], [0, 0, 0]]
    three["class_scores"]["c"] = {"images": 0, "precision": 0.0, "recall": None, "f1": None}
    rows = report_page.class_rows(three)
    assert [(row["name"], row["mistaken"], row["times"]) for row in rows] == [
        ("a", "b", 3), ("b", "c", 1), ("c", "", 0)
    ]  # fmt: skip
    page = report_page.render(document(x=three))
    assert report_page.percent(three["class_scores"]["a"]["f1"]) in page
    assert "a predicted as <b>b</b>: 3 images, 37.5 % of a" in page


def test_of_many_classes_those_of_lowest_f1_come_first():
    many = task(tuple(f"class {number:02d}" for number in range(70)), 700)
    scores = [row["f1"] for row in report_page.class_rows(many)]
    assert scores == sorted(scores) and len(scores) == 70
    assert report_page.render(document(x=many)).count('<tr class="unprinted">') == 10


def test_large_galleries_have_pages_and_print_the_first():
    image = {"key": "a.jpg", "truth": "a", "predicted": "b", "probability": 0.5, "picture": "", "heat": None}
    galleries = {"x": [{"title": "Mistakes", "images": [image] * 30}]}
    page = report_page.render(document(x=task(("a", "b", "c"))), galleries)
    assert 'data-page="24"' in page
    assert page.count('class=" unprinted"') == 6 and page.count("<img") == 0


def test_names_from_the_data_cannot_break_the_page():
    page = report_page.render(document())
    assert "<b>cats</b>" not in page and "&lt;b&gt;cats&lt;/b&gt;" in page
    assert "&lt;run&gt;" in page


def test_the_page_shows_the_figures_of_the_document():
    metrics_json = document()
    page = report_page.render(metrics_json)
    overall = metrics_json["tasks"]["authenticity"]["overall"]
    assert report_page.percent(overall["accuracy"]) in page
    assert f"ROC: AUC {overall['auc']:.3f}" in page
    assert page.count("<svg") == 5 + 2  # with the confusion matrices


def test_a_single_class_gives_a_page_without_a_roc_that_says_why():
    one = task()
    labels, probabilities = np.ones(20, int), np.tile([0.3, 0.7], (20, 1))
    one["overall"] = metrics.score(labels, probabilities, ("real", "fake")).document() | {"intervals": {}}
    one["calibration"] = calibration.document(labels, probabilities, np.arange(20) % 5 == 0)
    one["shortcuts"] = {"note": "no baseline: it needs two classes"}
    one["curves"] = curves.document(labels, probabilities)
    page = report_page.render(document(authenticity=one))
    assert page.count("needs images of every class, and there are none of real") == 1
    assert "Undefined, AUC, Average precision, True positives at 1 % false positives" in page
    assert "ROC: AUC" not in page
    assert "Not calibrated: calibration needs 20 images" in page
    assert "no baseline" in page


def test_a_shortcut_is_flagged_at_the_head_of_its_task():
    one = task()
    one["shortcuts"] |= {"balanced_accuracy": {"image size": 0.97, "all": 0.98}, "model": 0.99, "alarm": True}
    page = report_page.render(document(authenticity=one))
    assert page.index("Warning: possible shortcuts") < page.index("Confusion matrix")
    assert "98.0 % balanced accuracy on authenticity; the model reaches 99.0 %" in page
    assert "Warning: possible shortcuts" not in report_page.render(document())


def test_damage_and_galleries_are_drawn_where_there_are_any():
    one = task()
    row = {"accuracy": 0.9, "balanced_accuracy": 0.9, "auc": 0.95}
    one["robustness"] = {
        "images": 300,
        "kinds": {
            kind: [{"level": None} | row, *({"level": level} | row for level in levels)]
            for kind, levels in robustness.LEVELS.items()
        },
    }
    image = {"key": "a/<i>.jpg", "truth": "fake", "predicted": "real", "probability": 0.97,
             "picture": "data:image/jpeg;base64,AA==", "heat": "data:image/jpeg;base64,AA=="}  # fmt: skip
    galleries = {"authenticity": [{"title": "Worst", "images": [image, image | {"heat": None}]}]}
    page = report_page.render(document(authenticity=one), galleries)
    assert page.count("<svg") == 8 + 1
    assert page.count("<img") == 3
    assert "a/&lt;i&gt;.jpg" in page and "Grad-CAM" in page
    parser = BalancedPage(page)
    assert parser.open == []


def test_every_damage_that_is_measured_has_a_plot_that_holds_its_levels():
    for kind, levels in robustness.LEVELS.items():
        ticks = report_page.DAMAGES[kind][1].ticks
        assert ticks[0][0] <= min(levels) and max(levels) <= ticks[-1][0]


def test_duplicates_in_other_splits_are_shown_with_the_figures_without_them():
    twins = [{"split": "validation", "key": "a.jpg", "picture": "data:,"},
             {"split": "train", "key": "b/<2>.jpg", "picture": "data:,"}]  # fmt: skip
    metrics_json = document()
    page = report_page.render(metrics_json, pairs=[twins])
    assert "2 images of train are also in this split" in page
    assert "5 images of this split have a near duplicate in train" in page
    assert "over the 295 images without a duplicate in another split" in page
    assert page.count("<img") == 2 and "b/&lt;2&gt;.jpg" in page
    metrics_json["duplicates"]["near"] = {"note": "not searched for (the folder has 60,000 images)"}
    assert "not searched for (the folder has 60,000 images)" in report_page.render(metrics_json)
    metrics_json["duplicates"] = {"note": "not searched for (--duplicates=none)"}
    assert "Duplicates were not searched for" in report_page.render(metrics_json)


def test_a_report_on_the_images_of_training_says_so():
    assert "trained on these images" in report_page.render(document() | {"split": "train"})
    assert "trained on these images" not in report_page.render(document())


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100.0 %"), (0.99999, "> 99.9 %"), (0.5, "50.0 %"), (0.0, "0.0 %"), (None, "–")],
)
def test_percent_never_rounds_up_to_all(value, text):
    assert report_page.percent(value) == text


def test_points_lie_where_the_axes_say():
    x, y = charts.percent_axis("x"), charts.percent_axis("y")
    assert [x.coordinate(value, 10, 110) for value in (0, 0.5, 7)] == [10, 60, 110]
    drawn = charts.lines([charts.Series("", [0, 1], [0, 1])], x, y, label="line")
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    top, bottom = charts.TOP, charts.HEIGHT - charts.BOTTOM
    assert f'd="M{left:.1f} {bottom:.1f}L{right:.1f} {top:.1f}"' in drawn


def test_the_axis_of_shares_reaches_below_the_smallest():
    for low in (0.0, 0.3, 0.55, 0.83, 0.95, 1.0):
        axis = charts.span_axis("y", [low, 1.0])
        assert axis.ticks[0][0] <= low
        assert axis.ticks[-1][0] == 1.0


@pytest.mark.parametrize(
    ("split", "warns"),
    [("train", True), ("Training", True), ("train[:80%]", False), ("train[80%:]", False), ("test", False)],
)
def test_a_page_on_training_images_says_so(split, warns):
    about = document()["about"]
    page = report_page.render(document() | {"split": split})
    assert ("The run was trained on these images" in page) == warns
    other = report_page.render(document() | {"split": split, "about": about | {"same_data_set": False}})
    assert "The run was trained on these images" not in other
