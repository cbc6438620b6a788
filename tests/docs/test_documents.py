"""README and docs say what is so: commands and code run, links lead somewhere, flags exist.

Commands that train or measure for minutes are parsed by their own flags, values included; all others run, on
toy images in a folder in which the names that the pages use (IMAGES, SHARDS, RUN, …) exist.
"""

import configparser
import csv
import dataclasses
import importlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from deepduel import presets, subcommands, toy_images
from deepduel.reports import model_card
from deepduel.runs import training_run
from deepduel.runs.training_state import State
from tests.conftest import run_command
from tests.docs.blocks import PAGES, ROOT, Block, anchors, blocks, flag_names, links, prose
from tests.helpers import fake_runs
from tfrecords_tools import convert, export, records

COMMANDS = (
    "tfrecords_tools.convert", "tfrecords_tools.verify", "tfrecords_tools.inspect", "tfrecords_tools.export",
    "deepduel.train",
    "deepduel.evaluate", "deepduel.predict", "deepduel.compare", "deepduel.export", "deepduel.profile_input",
    "deepduel.toy_images", "deepduel.data_service",
)  # fmt: skip
FLAG_PAGES = {
    "tfrecords_tools.convert": ("converting", "scaling"),
    "tfrecords_tools.verify": ("converting",),
    "tfrecords_tools.export": ("converting",),
    "tfrecords_tools.inspect": ("converting",),
    "deepduel.train": ("training", "augmenting", "scaling"),
    "deepduel.evaluate": ("evaluating",),
    "deepduel.predict": ("predicting",),
    "deepduel.compare": ("evaluating",),
    "deepduel.export": ("predicting",),
    "deepduel.profile_input": ("training", "augmenting", "scaling"),
    "deepduel.data_service": ("scaling",),
    "deepduel.toy_images": ("index",),
}
LONG = (  # they measure or train for minutes, or serve without end
    "deepduel.data_service",
    "deepduel.quickstart",
    "experiments.benchmark_augment", "experiments.benchmark_convert", "experiments.benchmark_gpu",
    "experiments.benchmark_listing",
    "experiments.benchmark_memory",
    "experiments.benchmark_photos", "experiments.benchmark_throughput", "experiments.compare_loading",
    "experiments.export_stablehlo", "experiments.soak", "experiments.time_to_accuracy",
    "experiments.what_helps",
)  # fmt: skip
FOREIGN_FLAGS = {"flagfile", "help", "helpfull", "version"}  # of every command
LANGUAGES = ("shell", "python", "text")
TESTED = [page for page in PAGES if any(block.is_run for block in blocks(page))]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> pathlib.Path:
    """A folder with everything that the pages' commands take for granted."""
    folder = tmp_path_factory.mktemp("documents")
    toy_images.write_folder(folder / "IMAGES", count=480, size=200, seed=0)
    shutil.copytree(folder / "IMAGES" / "test", folder / "FOLDER")
    shutil.copy(next((folder / "FOLDER").iterdir()), folder / "PHOTO.jpg")
    for number, path in enumerate(sorted((folder / "IMAGES" / "train" / "real").rglob("*.jpg"))):
        target = folder / "PHOTOS" / path.parent.name / f"{number:08d}_{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    code = run_command(convert, f"--input_dir={folder}/IMAGES", f"--output_dir={folder}/SHARDS")
    assert code == 0
    (folder / "DOGS/train").mkdir(parents=True)
    rows_of_dogs = ["id,breed"]
    for number, path in enumerate(sorted((folder / "PHOTOS").rglob("*.jpg"))[::40]):
        shutil.copy(path, folder / f"DOGS/train/{number}.jpg")
        rows_of_dogs.append(f"{number},{('beagle', 'boxer')[number % 2]}")
    (folder / "DOGS/labels.csv").write_text("\n".join(rows_of_dogs))
    shutil.make_archive(str(folder / "IMAGES"), "zip", folder / "IMAGES")
    for kind, name in (("webdataset", "TAR_FILES"), ("parquet", "PARQUET_FILES")):
        words = f"--data_dir={folder}/SHARDS", f"--format={kind}", f"--output={folder}/{name}"
        assert run_command(export, *words) == 0
    for seed, name in enumerate(("RUN", "OTHER_RUN")):
        fake_runs.write_run(folder / name, folder / "SHARDS", seed=seed)
        for task in ("category", "authenticity"):
            shutil.copy(folder / name / task / "best.keras", folder / name / task / "epoch-01.keras")
    rows = list(csv.DictReader((folder / "IMAGES" / "metadata.csv").open()))
    with (folder / "GENERATORS.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("image_path", "generator"), *((row["image_path"], f"model {row['label']}") for row in rows)]
        )
    (folder / "experiments").symlink_to(ROOT / "experiments")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", TESTED, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, workshop, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(workshop, folder, symlinks=True)
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks(page):
        if block.is_run and block.language == "shell":
            for words in block.commands:
                try_command(words, block, monkeypatch)
        elif block.is_run and block.mark == "run alone":
            subprocess.run([sys.executable, "-c", block.text], check=True)
        elif block.is_run:
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
    CHECKS.get(page.stem, lambda names: None)(names)


def try_command(words: list[str], block: Block, monkeypatch) -> None:
    """Runs a command, or has its own flags parse it."""
    match words:
        case ["deepduel", name, *arguments] if name in subcommands.SUBCOMMANDS:
            words = ["python", "-m", subcommands.SUBCOMMANDS[name].module, *arguments]
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), block.place
        case ["pip", "install", what]:
            assert unknown_extras(what) == set(), block.place
        case ["python", "-m", "deepduel.train", *arguments] if "--dry_run" not in arguments:
            begin_training(arguments, block, monkeypatch)
        case ["python", "-m", module, *arguments] if module in COMMANDS and module not in LONG:
            assert run_command(importlib.import_module(module), *arguments) == 0, block.place
            for word in arguments:
                name, _, value = word.partition("=")
                if name in ("--output", "--output_dir") and value:
                    assert pathlib.Path(value).exists(), f"{block.place}: {value} was not written"
        case ["python", "-m", module, *arguments] if module in LONG:
            options = importlib.import_module(module).FLAGS
            options.unparse_flags()
            assert options([module, *arguments]) == [module], block.place
        case _:
            pytest.fail(f"{block.place}: nothing here knows how to try {' '.join(words)!r}; add it, or mark "
                        "the block: <!-- not run: reason -->")  # fmt: skip


def begin_training(arguments: list[str], block: Block, monkeypatch) -> None:
    """Everything that deepduel.train does before it trains: flags, options and data are checked."""
    begun = []

    def train(options, tasks, **_):
        begun.append(options.workdir)
        history = [{"epoch": 1, "seconds": 1.0} | {f"val_{task.axis}_accuracy": 1.0 for task in tasks}]
        return State(epoch=1, history=history, best={task.axis: (1.0, 1) for task in tasks})

    monkeypatch.setattr(training_run, "train", train)
    monkeypatch.setattr(model_card, "write", lambda workdir: None)
    assert run_command(importlib.import_module("deepduel.train"), *presets.resolve(arguments)) == 0, (
        block.place
    )
    assert len(begun) == 1, block.place


def unknown_extras(requirement: str) -> set[str]:
    """Extras of "deepduel[remote]" or ".[gpu,test]" that setup.cfg does not have."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    asked = re.search(r"\[([\w,]+)\]", requirement)
    return set(asked[1].split(",") if asked else ()) - set(config["options.extras_require"])


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "pip install '.[nothing]'",
        "python -m deepduel.train --data_dir=SHARDS --workdir=RUN --bacth_size=64",
        "python -m deepduel.train --data_dir=SHARDS --workdir=RUN --optimizer=nothing",
        "python -m deepduel.train --data_dir=NOWHERE --workdir=RUN",
        "python -m deepduel.evaluate --workdir=NOWHERE --data_dir=SHARDS",
        "python -m tfrecords_tools.convert --input_dir=IMAGES --output_dir=NEW --encoding=nothing",
        "python -m experiments.benchmark_throughput --images=IMAGES --data_dir=SHARDS --output=A --nothing=1",
        "python -m deepduel.nothing",
        "rm -rf IMAGES",
    ],
)
def test_a_command_that_does_not_work_is_noticed(command, workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(workshop)
    page = tmp_path / "page.md"
    page.write_text(f"```shell\n{command}\n```\n")
    (block,) = blocks(page)
    block = dataclasses.replace(block, page=ROOT / "README.md")
    with pytest.raises((AssertionError, pytest.fail.Exception, flags.Error)):
        try_command(block.commands[0], block, monkeypatch)


def check_augmenting(names: dict) -> None:
    images, labels = next(iter(names["mixed"]))
    assert images.shape == (64, 224, 224, 3) and labels.shape == (64, 3)
    assert names["pixels"].shape == (8, 224, 224, 3) and names["labels"].shape == (8, 3)


def check_library(names: dict) -> None:
    assert next(iter(names["square"]))[0].shape == (64, 128, 128, 3)
    assert next(iter(names["part"]))[0].shape == (32, 200, 200, 3)
    assert set(next(iter(names["later"]))[1]) == {"authenticity", "category"}
    keys = {example["key"] for example in names["examples"].as_numpy_iterator()}
    assert -(-len(keys) // 64) == names["train"].steps_per_epoch
    assert {record["key"] for record in names["records"].as_numpy_iterator()} == keys


def check_formats(names: dict) -> None:
    assert names["jpeg"][:2] == b"\xff\xd8" and names["jpeg"][-2:] == b"\xff\xd9"


def check_scaling(names: dict) -> None:
    assert names["images"].shape == (32, 200, 200, 3)


def check_predicting(names: dict) -> None:
    tf = names["tf"]
    (instance,) = json.loads(names["body"])["instances"]  # of which TF Serving makes a batch
    serving = tf.saved_model.load("EXPORTED/category").signatures["serving_default"]
    served = serving(**{name: tf.constant([value], tf.float32) for name, value in instance.items()})
    for probabilities in (served["probabilities"].numpy()[0], names["prediction"]["probabilities"][0]):
        np.testing.assert_allclose(probabilities, names["probabilities"], atol=1e-4)
    assert served["label"].numpy()[0].decode() == names["label"]


CHECKS = {
    "augmenting": check_augmenting, "library": check_library, "formats": check_formats,
    "scaling": check_scaling, "predicting": check_predicting,
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: ```{block.language}"
        assert not block.mark or block.language != "text", f"{block.place}: text never runs"
    marks = prose(page).count("<!-- ")
    assert marks == sum(bool(block.mark) for block in blocks(page)), "a comment that marks no block"
    outside = re.findall(r"^    .*(?:python -m|pip |make ).*$", prose(page), re.MULTILINE)
    assert not outside, f"commands outside of a fenced block are not tested: {outside}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), f"{page.name}: there is no {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {path or page.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_that_a_page_names_exists(page):
    known = {name for module in (*COMMANDS, *LONG) for name in importlib.import_module(module).FLAGS}
    known |= FOREIGN_FLAGS
    assert flag_names(page) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_have_flags_that_exist_also_where_they_are_not_run(page):
    modules = {f"deepduel {name}": command.module for name, command in subcommands.SUBCOMMANDS.items()}
    modules |= {f"python -m {module}": module for module in modules.values()}
    for block in (block for block in blocks(page) if block.language == "shell"):
        for words in block.commands:
            named = {word[2:].partition("=")[0] for word in words if word.startswith("--")} - FOREIGN_FLAGS
            for start, module in modules.items():
                if f"{' '.join(words)} ".startswith(f"{start} "):
                    assert named <= set(importlib.import_module(module).FLAGS), f"{block.place}: {words}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_is_named_on_its_pages(command):
    text = "".join((ROOT / "docs" / f"{page}.md").read_text("utf-8") for page in FLAG_PAGES[command])
    assert set(importlib.import_module(command).FLAGS) - set(re.findall(r"--(\w+)", text)) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_of_the_repository_that_a_page_names_exists(page):
    for name in re.findall(r"`((?:experiments|tests|docs)/[\w./-]+)`", prose(page)):
        assert (ROOT / name).exists(), f"{page.name}: there is no {name}"
    for requirement in re.findall(r"pip install '([^']+)'", prose(page)):
        assert unknown_extras(requirement) == set(), f"{page.name}: {requirement}"


def test_presets_and_commands_are_the_ones_named():
    training = (ROOT / "docs" / "training.md").read_text("utf-8")
    assert [name for name in presets.names() if f"`{name}`" not in training] == []
    overview = (ROOT / "docs" / "index.md").read_text("utf-8")
    rows = re.findall(r"^\| `deepduel (\w+)` \| .+ \| `python -m ([\w.]+)` \|$", overview, re.MULTILINE)
    assert rows == [(name, command.module) for name, command in subcommands.SUBCOMMANDS.items()]


def test_the_readme_leads_to_every_page_and_is_short():
    readme = ROOT / "README.md"
    assert {f"docs/{page.name}" for page in PAGES[1:]} <= set(links(readme))
    assert len(readme.read_text("utf-8").splitlines()) < 200


def test_the_site_has_every_page():
    listed = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    assert listed == {page.name for page in PAGES[1:]}


def test_the_formats_page_names_every_field(workshop):
    page = (ROOT / "docs" / "formats.md").read_text("utf-8")
    named = {word for code in re.findall(r"`([^`\n]+)`", page) for word in re.findall(r"\w+", code)}
    manifest = json.loads((workshop / "SHARDS" / "manifest.json").read_text("utf-8"))
    shard = manifest["splits"]["train"]["shards"][0]
    card = json.loads((workshop / "RUN" / "run.json").read_text("utf-8"))
    fields = {*manifest, *shard, *card, *card["tasks"]["category"], *records.table_dtype(1).names}
    assert fields - named == set()


@pytest.mark.slow
def test_the_formats_page_names_every_figure(workshop, tmp_path):
    evaluate = importlib.import_module("deepduel.evaluate")
    run, data = tmp_path / "RUN", workshop / "SHARDS"
    shutil.copytree(workshop / "RUN", run)
    assert run_command(evaluate, f"--workdir={run}", f"--data_dir={data}", "--bootstrap=20") == 0
    document = json.loads((run / "evaluation" / "validation" / "metrics.json").read_text("utf-8"))
    task = document["tasks"]["authenticity"]
    fields = {*document, *document["about"], *document["duplicates"], *task, *task["overall"]}
    fields |= {*task["calibration"], *task["shortcuts"], *task["cells"]["real/animals"]}
    page = (ROOT / "docs" / "formats.md").read_text("utf-8")
    named = {word for code in re.findall(r"`([^`\n]+)`", page) for word in re.findall(r"\w+", code)}
    assert fields - named == set()
