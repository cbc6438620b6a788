"""Evaluation: every record once, figures that can be recomputed, and one line for each mistake."""

import csv
import json
import shutil

import numpy as np
import pytest
from sklearn import metrics as sk

from deepduel import evaluate
from deepduel.decoding.split import Split
from deepduel.networks.run_card import RunCard
from tests.conftest import run_command
from tests.helpers.batches import spoil
from tests.helpers.fake_runs import write_run

VALIDATION = 54


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, toy_shards):
    return write_run(tmp_path_factory.mktemp("evaluate") / "run", toy_shards)


@pytest.fixture(scope="module")
def evaluated(run_folder, toy_shards):
    """The folder of an evaluation with a batch size that divides nothing."""
    code = run_command(
        evaluate, f"--workdir={run_folder}", f"--data_dir={toy_shards}", "--batch_size=17", "--micro_batch=5",
        "--bootstrap=50",
    )  # fmt: skip
    assert code == 0
    return run_folder / "evaluation" / "validation"


def _metrics(folder):
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def _rows(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_record_is_predicted_exactly_once_under_its_own_label(evaluated, toy_shards):
    split = Split(toy_shards, "validation")
    rows = _rows(evaluated)
    assert len(rows) == VALIDATION
    assert [row["key"] for row in rows] == [split.key(n).decode() for n in range(len(split))]
    for row in rows:
        assert row["key"].split("/")[1:3] == [row["authenticity"], row["category"]]


def test_metrics_are_those_of_the_predictions_file(evaluated):
    document, rows = _metrics(evaluated), _rows(evaluated)
    for axis, task in document["tasks"].items():
        names = task["classes"]
        truth = np.array([names.index(row[axis]) for row in rows])
        probabilities = np.array([[float(row[f"p_{axis}_{name}"]) for name in names] for row in rows])
        predicted = probabilities.argmax(1)
        assert [row[f"{axis}_predicted"] for row in rows] == [names[number] for number in predicted]
        overall = task["overall"]
        assert overall["images"] == VALIDATION
        assert overall["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
        assert task["confusion"] == sk.confusion_matrix(truth, predicted, labels=range(len(names))).tolist()
        scores = (
            probabilities[:, 1] if len(names) == 2 else probabilities / probabilities.sum(1, keepdims=True)
        )
        # The file has six digits, by which a pair or two of this network's outputs tie.
        assert overall["auc"] == pytest.approx(sk.roc_auc_score(truth, scores, multi_class="ovr"), abs=1e-3)


def test_every_task_has_the_documented_parts_and_figures_with_intervals(evaluated):
    from deepduel.evaluation import metrics, metrics_document

    document = _metrics(evaluated)
    assert (document["format"], document["format_version"]) == ("deepduel-metrics", 1)
    assert {"within": 0, "across": {"test": 0, "train": 0}}.items() <= document["duplicates"].items()
    for task in document["tasks"].values():
        assert tuple(task) == metrics_document.PARTS
        for name in metrics.TITLES:
            value = task["overall"][name]
            if value is None:
                assert task["overall"]["notes"][name]
            else:
                low, high = task["overall"]["intervals"][name]
                assert low <= high
                assert low - 0.05 <= value <= high + 0.05, name


def test_cells_and_groups_cover_all_images_and_agree_with_the_whole(evaluated):
    document = _metrics(evaluated)
    task = document["tasks"]["authenticity"]
    assert len(task["cells"]) == 6
    right = sum(cell["accuracy"] * cell["images"] for cell in task["cells"].values())
    assert right / VALIDATION == pytest.approx(task["overall"]["accuracy"])
    groups = task["groups"]["category"]
    assert sum(group["images"] for group in groups.values()) == VALIDATION
    assert all(group["auc"] is not None for group in groups.values())


@pytest.mark.slow
@pytest.mark.parametrize("extra", [["--batch_size=1000"], ["--batch_size=7", "--micro_batch=64"],
                                   ["--reader=sequential", "--batch_size=10"]], ids=str)  # fmt: skip
def test_the_figures_do_not_depend_on_batch_size_or_reader(
    evaluated, run_folder, toy_shards, tmp_path, extra
):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("evaluation"))
    assert (
        run_command(evaluate, f"--workdir={copy}", f"--data_dir={toy_shards}", "--bootstrap=0", *extra) == 0
    )
    first, second = _rows(evaluated), _rows(copy / "evaluation" / "validation")
    for one, other in zip(first, second, strict=True):
        assert one["key"] == other["key"]
        for name in one:
            if name.startswith("p_"):
                assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-4)


def test_the_command_prints_a_table_and_where_the_report_is(run_folder, toy_shards, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("evaluation"))
    words = f"--workdir={copy}", f"--data_dir={toy_shards}", "--tasks=category", "--bootstrap=0"
    folder = copy / "evaluation" / "validation"
    folder.mkdir(parents=True)
    (folder / "report.pdf").touch()  # of an earlier evaluation
    assert run_command(evaluate, *words) == 0
    out = capsys.readouterr().out
    assert "category" in out and "authenticity" not in out
    assert str(folder / "report.html") in out
    assert f"removed {folder / 'report.pdf'}" in out and not (folder / "report.pdf").exists()


@pytest.mark.slow
def test_records_without_a_label_are_left_out_and_counted(evaluated, run_folder, toy_shards, tmp_path):
    """The test split's own labels are all -1; here some of validation's become so."""
    from deepduel.evaluation import metrics_document, predictions
    from deepduel.prediction.predictor import Predictor
    from deepduel.reading import pipeline

    predictor = Predictor(run_folder)
    split, labels = predictions.open_split(toy_shards, "validation", predictor)
    labels["category"][:10] = -1
    reading = pipeline.ReadOptions(16, predictor.card.size)
    document = metrics_document.document(
        predictions.predict(split, labels, predictor, reading), {}, replicates=0
    )
    task = document["tasks"]["category"]
    assert (task["images"], task["unlabelled"]) == (VALIDATION - 10, 10)
    assert sum(map(sum, task["confusion"])) == VALIDATION - 10
    assert document["tasks"]["authenticity"]["images"] == VALIDATION


def test_provenance_names_data_models_and_versions(evaluated):
    about = _metrics(evaluated)["about"]
    assert len(about["model_sha256"]["category"]) == len(about["data_sha256"]) == 64
    assert about["same_data_set"] is True
    assert {"tensorflow", "keras", "scikit-learn"} <= set(about["versions"])


def _fails(capsys, *words, code, says):
    assert run_command(evaluate, *words) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for part in says:
        assert part in error, error


def test_a_folder_without_a_run_is_named(toy_shards, tmp_path, capsys):
    _fails(
        capsys, f"--workdir={tmp_path}", f"--data_dir={toy_shards}", code=1, says=[str(tmp_path), "run.json"]
    )


def test_a_split_without_labels_is_said_to_have_none(run_folder, toy_shards, capsys):
    _fails(capsys, f"--workdir={run_folder}", f"--data_dir={toy_shards}", "--split=test", code=2,
           says=["split 'test'", "no labels", "deepduel.predict"])  # fmt: skip


def test_an_unknown_split_task_or_model_lists_what_there_is(run_folder, toy_shards, capsys):
    flags = f"--workdir={run_folder}", f"--data_dir={toy_shards}"
    _fails(capsys, *flags, "--split=nope", code=2, says=["nope", "train"])
    _fails(capsys, *flags, "--tasks=species", code=2, says=["'species'", "authenticity"])
    _fails(capsys, *flags, "--model=epoch-99", code=2, says=["epoch-99", "best"])
    _fails(capsys, *flags, "--robustness_images=9", code=2, says=["has no effect without --robustness"])


def test_data_of_other_axes_or_classes_are_refused(run_folder, toy_shards, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("evaluation"))
    document = json.loads((copy / "run.json").read_text())
    document["tasks"]["generator"] = document["tasks"].pop("category")
    (copy / "run.json").write_text(json.dumps(document))
    (copy / "category").rename(copy / "generator")
    _fails(capsys, f"--workdir={copy}", f"--data_dir={toy_shards}", code=1, says=["'generator'", "--tasks"])
    document["tasks"]["category"] = document["tasks"].pop("generator")
    document["tasks"]["category"]["classes"] = ["animals", "plants", "vehicles"]
    (copy / "run.json").write_text(json.dumps(document))
    (copy / "generator").rename(copy / "category")
    _fails(capsys, f"--workdir={copy}", f"--data_dir={toy_shards}", code=1, says=["human_faces", "plants"])


def test_classes_in_another_order_are_matched_by_name(run_folder, toy_shards):
    from deepduel.evaluation import predictions
    from deepduel.prediction.predictor import Predictor

    predictor = Predictor(run_folder)
    predictor.classes["category"] = ("vehicles", "animals", "human_faces")
    split, labels = predictions.open_split(toy_shards, "validation", predictor)
    for number in range(len(split)):
        assert (
            predictor.classes["category"][labels["category"][number]]
            == split.key(number).decode().split("/")[2]
        )


def test_a_damaged_model_file_is_named(run_folder, toy_shards, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("evaluation"))
    path = copy / "category" / "best.keras"
    path.write_bytes(path.read_bytes()[:1000])
    _fails(capsys, f"--workdir={copy}", f"--data_dir={toy_shards}", code=1, says=[str(path)])


def test_a_model_of_another_run_is_refused(run_folder, toy_shards, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("evaluation"))
    shutil.copy(copy / "authenticity" / "best.keras", copy / "category" / "best.keras")
    _fails(capsys, f"--workdir={copy}", f"--data_dir={toy_shards}", code=1, says=["belongs to another run"])


def test_a_model_that_diverged_is_said_to_have(run_folder, toy_shards, tmp_path, capsys):
    import keras

    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, ignore=shutil.ignore_patterns("evaluation"))
    path = copy / "category" / "best.keras"
    model = keras.models.load_model(path)
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(path)
    _fails(capsys, f"--workdir={copy}", f"--data_dir={toy_shards}", code=1, says=["54 of 54", "diverged"])
    assert not (copy / "evaluation").exists()


def test_the_card_of_a_run_survives_saving(run_folder, tmp_path):
    card = RunCard.load(run_folder)
    card.save(tmp_path)
    assert RunCard.load(tmp_path) == card


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["random", "sequential"])
def test_images_that_do_not_decode_are_left_out_and_counted(run_folder, toy_shards, tmp_path, capsys, reader):
    shards = shutil.copytree(toy_shards, tmp_path / "shards")
    bad = (0, 20, 53)
    spoil(shards, *bad, split="validation")
    keys = [Split(shards, "validation").key(number).decode() for number in range(VALIDATION)]
    run = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    words = f"--workdir={run}", f"--data_dir={shards}", "--bootstrap=0", f"--reader={reader}"
    assert run_command(evaluate, *words) == 1
    assert "does not decode" in capsys.readouterr().err
    assert not (run / "evaluation").exists()
    assert run_command(evaluate, *words, "--batch_size=17", "--on_error=skip") == 0
    assert "left out, as they cannot be decoded: 3 of 54 images" in capsys.readouterr().out
    folder = run / "evaluation" / "validation"
    document = _metrics(folder)
    assert (document["records"], document["left_out"]) == (VALIDATION, 3)
    for task in document["tasks"].values():
        assert (task["images"], task["unlabelled"]) == (VALIDATION - 3, 0)
        assert np.sum(task["confusion"]) == VALIDATION - 3
    assert [row["key"] for row in _rows(folder)] == [key for n, key in enumerate(keys) if n not in bad]
    assert "as they cannot be decoded: 3 images" in (folder / "report.html").read_text("utf-8")


def test_doubted_labels_are_listed_counted_and_in_the_report(run_folder, toy_shards):
    pytest.importorskip("cleanlab")
    words = "--name=doubted", "--label_check", "--bootstrap=0", "--tasks=category", "--duplicates=none"
    assert run_command(evaluate, f"--workdir={run_folder}", f"--data_dir={toy_shards}", *words) == 0
    folder = run_folder / "evaluation" / "doubted"
    with (folder / "doubted_labels.csv").open(newline="") as file:
        doubted = list(csv.DictReader(file))
    wrong = {row["key"]: row for row in _rows(folder) if row["category"] != row["category_predicted"]}
    assert doubted and len(doubted) == _metrics(folder)["tasks"]["category"]["label_check"]["doubted"]
    for row in doubted:
        answer = wrong[row["key"]]
        assert (row["label"], row["predicted"]) == (answer["category"], answer["category_predicted"])
        assert row["probability_of_label"] == answer[f"p_category_{row['label']}"]
    assert f"{len(doubted)} labels that confident learning" in (folder / "report.html").read_text("utf-8")
