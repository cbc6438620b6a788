"""RUN/README.md, for people and for model hubs."""

import json

import pytest
import yaml

from deepduel.networks.run_card import RunCard
from deepduel.reports import model_card

CARD = RunCard(
    tasks={
        "category": {"classes": ["cats", "a|b `c` <i>"], "image_size": 64, "crop_size": 96},
        "authenticity": {"classes": ["real", "fake"], "image_size": 128},
    },
    size=(128, 128),
    fit="crop",
    fast_decode=False,
    data_name="photos",
    data_source="1" * 64,
    seed=3,
    data_sha256="2" * 64,
)
HISTORY = "epoch,val_category_accuracy,val_authenticity_accuracy\n1,0.5,0.75\n2,0.625,\n"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my: run"
    folder.mkdir()
    CARD.save(folder)
    (folder / "history.csv").write_text(HISTORY)
    return folder


def evaluate(run, name: str, accuracy: float) -> None:
    overall = {"accuracy": accuracy, "auc": None}
    task = {"images": 1234, "overall": overall}
    document = {"split": "test", "about": {"data_name": "photos"}, "tasks": {"category": task}}
    (run / "evaluation" / name).mkdir(parents=True)
    (run / "evaluation" / name / "metrics.json").write_text(json.dumps(document))


def metadata(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.removeprefix("---\n").partition("\n---\n")[0])


def test_the_card_of_a_run_that_was_not_evaluated(run):
    text = model_card.write(run).read_text("utf-8")
    assert metadata(text) == {
        "license": "unknown", "library_name": "keras", "pipeline_tag": "image-classification",
        "tags": ["image-classification", "keras", "deepduel", "category", "authenticity"],
        "metrics": ["accuracy"],
    }  # fmt: skip
    for line in (
        r"| category | `category/best.keras` | 64 | cats, a\|b 'c' &lt;i&gt; |",
        "- category: 62.50%",
        "- authenticity: 75.00%",
        "- category: resized to 128x128 pixels, with what exceeds the aspect ratio cut off, then cut to the "
        "central 96x96 pixels, then resized to 64x64 pixels",
        "- authenticity: resized to 128x128 pixels, with what exceeds the aspect ratio cut off",
        f"- SHA-256 of the shards: `{'2' * 64}`",
        "- random seed: 3",
    ):
        assert line in text.splitlines()


def test_results_are_those_of_its_evaluations(run):
    evaluate(run, "test", 0.75)
    evaluate(run, "phone-test", 0.5)
    (run / "evaluation" / "broken").mkdir()
    (run / "evaluation" / "broken" / "metrics.json").write_text("{")
    text = model_card.write(run).read_text("utf-8")
    assert "| category | [test](evaluation/test/report.html) | 1,234 | 75.00% | - |" in text
    (model,) = metadata(text)["model-index"]
    assert model["name"] == "my: run"
    values = [[metric["value"] for metric in result["metrics"]] for result in model["results"]]
    assert values == [[0.5], [0.75]]
    for result in model["results"]:
        assert result["task"]["type"] == "image-classification"
        assert result["dataset"] == {"name": "photos", "type": "image", "split": "test"}


def test_the_users_licence_and_text_are_kept(run):
    path = model_card.write(run)
    text = path.read_text("utf-8").replace("license: unknown", "license: apache-2.0\nlicense_name: mine")
    path.write_text(text + "Do not use it for dogs.\n")
    evaluate(run, "test", 0.75)
    for _ in range(2):
        text = model_card.write(run).read_text("utf-8")
        assert metadata(text)["license"] == "apache-2.0" and metadata(text)["license_name"] == "mine"
        assert text.count("Do not use it for dogs.\n") == 1 and "75.00%" in text


def test_a_readme_of_the_users_own_is_kept_below(run):
    (run / "README.md").write_text("# Notes\n")
    for _ in range(2):
        assert model_card.write(run).read_text("utf-8").endswith(f"{model_card._END}\n# Notes\n")


def test_what_a_user_wrote_is_kept_in_any_encoding_and_with_any_line_ends(run):
    path = model_card.write(run)
    text = path.read_text("utf-8").replace("license: unknown", "license: mit") + "Für Hunde.\n"
    path.write_bytes(text.replace("\n", "\r\n").encode("cp1252"))
    for _ in range(2):
        data = model_card.write(run).read_bytes()
        assert data.startswith(b"---\nlicense: mit") and b"\r" not in data
        assert data.endswith(model_card._END.encode() + "\nFür Hunde.\n".encode("cp1252"))
        assert data.count(b"# my: run") == 1
