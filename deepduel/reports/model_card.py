"""RUN/README.md: the card of a run's models, as model hubs show it.

The file begins with the metadata that Hugging Face's hub reads (huggingface.co/docs/hub/model-cards):
licence, library, task and results. It is written when training ends, and again after each evaluation. Its
licence and what a user writes below the last line are kept.
"""

import csv
import html
import json
import os
import pathlib
import re
from typing import Any

from deepduel.networks.run_card import InitialCard, RunCard, TaskCard
from tfrecords_tools import regular_files
from tfrecords_tools.atomic import published
from tfrecords_tools.format import documents

NAME = "README.md"
_MOST_BYTES = 1 << 22
_LICENCE = "license: unknown  # a licence of huggingface.co/docs/hub/repositories-licenses"
_END = "<!-- deepduel rewrites what is above this line, except for the licence. Below it is yours. -->"
_FITS = {
    "crop": "resized to {size} pixels, with what exceeds the aspect ratio cut off",
    "pad": "resized to {size} pixels, with black borders where the aspect ratio differs",
    "native": "cut to {size} pixels in the centre, without resizing",
}


def write(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes the card of a run from the files in its folder. Returns its path.

    Raises:
      DataError: run.json is missing or unreadable.
      OSError: the file cannot be written.
    """
    folder = pathlib.Path(workdir)
    path = folder / NAME
    licence, below = _kept(path)
    text = render(folder, RunCard.load(folder), licence)
    with published(path, binary=True) as file:
        file.write(f"{text}\n{_END}\n{below}".encode("utf-8", "surrogateescape"))
    return path


def render(folder: pathlib.Path, card: RunCard, licence: str = _LICENCE) -> str:
    """The card without the user's part.

    Args:
      folder: of the run.
      card: its run.json.
      licence: lines of the metadata.
    """
    name = folder.resolve().name
    evaluations = _evaluations(folder)
    parts = [
        _metadata(name, card, evaluations, licence),
        f"# {_plain(name)}",
        "Keras image classifiers, trained with deepduel. Each takes RGB pixels 0..255, "
        "`float32 [B, S, S, 3]`, and returns probabilities, `float32 [B, classes]`; preprocessing is part of "
        "the model.",
        _classes(card),
        _results(folder, card, evaluations),
        _usage(card),
        _data(card),
    ]
    return "\n\n".join(parts) + "\n"


def _kept(path: pathlib.Path) -> tuple[str, str]:
    """(the licence's lines, what the user has written below) of an earlier card, whatever its encoding."""
    try:
        text = regular_files.read(path, limit=_MOST_BYTES).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return _LICENCE, ""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")  # editors of Windows
    head, _, _ = text.removeprefix("---\n").partition("\n---\n")
    lines = re.findall(r"^license\w*:.*$", head, re.MULTILINE)
    _, end, below = text.partition(f"{_END}\n")
    return "\n".join(lines) or _LICENCE, below if end else text


def _metadata(name: str, card: RunCard, evaluations: dict[str, dict], licence: str) -> str:
    results = [
        {
            "task": {"type": "image-classification", "name": axis},
            "dataset": {
                "name": evaluation["about"]["data_name"],
                "type": "image",
                "split": evaluation["split"],
            },
            "metrics": [
                {"type": metric, "value": task["overall"][metric], "name": f"{axis} {metric}"}
                for metric in ("accuracy", "auc")
                if task["overall"].get(metric) is not None
            ],
        }
        for evaluation in evaluations.values()
        for axis, task in evaluation["tasks"].items()
    ]
    fields: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "keras", "deepduel", *card.tasks],
        "metrics": ["accuracy"],
    }
    if results:
        fields["model-index"] = [{"name": name, "results": results}]
    # JSON is YAML, so names of any letters need no rules of their own.
    lines = [f"{field}: {json.dumps(value)}" for field, value in fields.items()]
    return "\n".join(["---", licence, *lines, "---"])


def _classes(card: RunCard) -> str:
    rows = [
        f"| {axis} | `{axis}/best.keras` | {task['image_size']} | {', '.join(map(_plain, task['classes']))} |"
        for axis, task in card.tasks.items()
    ]
    head = [
        "| task | model | input S in pixels | classes, in the order of the outputs |",
        "|---|---|---|---|",
    ]
    return "\n".join(["## Models", "", *head, *rows])


def _results(folder: pathlib.Path, card: RunCard, evaluations: dict[str, dict]) -> str:
    lines = ["## Results", ""]
    lines += ["| task | data | images | accuracy | AUC |", "|---|---|---|---|---|"]
    for name, evaluation in evaluations.items():
        for axis, task in evaluation["tasks"].items():
            overall, auc = task["overall"], task["overall"]["auc"]
            lines.append(
                f"| {axis} | [{_plain(name)}](evaluation/{name}/report.html) | {task['images']:,} | "
                f"{overall['accuracy']:.2%} | {'-' if auc is None else f'{auc:.4f}'} |"
            )
    if len(lines) > 4:
        return "\n".join(lines)
    best = {axis: _best_accuracy(folder / "history.csv", axis) for axis in card.tasks}
    figures = [f"- {axis}: {accuracy:.2%}" for axis, accuracy in best.items() if accuracy is not None]
    note = "Highest validation accuracy of an epoch; the same images selected the best epoch:"
    return "\n".join(["## Results", "", note, "", *figures])


def _usage(card: RunCard) -> str:
    axis, task = next(iter(card.tasks.items()))
    side = task["image_size"]
    code = f"""```python
import keras
import numpy as np
from PIL import Image

model = keras.models.load_model("{axis}/best.keras")
image = Image.open("photo.jpg").convert("RGB").resize(({side}, {side}))
probabilities = model.predict(np.asarray(image, "float32")[None])[0]
```"""
    steps = "\n".join(f"- {name}: {_preparation(card, each)}" for name, each in card.tasks.items())
    return (
        f"## Usage\n\n{code}\n\nFor training, images of different sizes were prepared as follows, which "
        f"`python -m deepduel.predict --workdir=. --images=photo.jpg` does as well:\n\n{steps}"
    )


def _preparation(card: RunCard, task: TaskCard) -> str:
    height, width = card.size
    steps = [_FITS[card.fit].format(size=f"{height}x{width}")]
    crop = task.get("crop_size") or 0
    if crop:
        steps.append(f"cut to the central {crop}x{crop} pixels")
    if (crop or height, crop or width) != (task["image_size"],) * 2:
        steps.append(f"resized to {task['image_size']}x{task['image_size']} pixels")
    return ", then ".join(steps)


def _data(card: RunCard) -> str:
    lines = ["## Training data", "", f"- name: {_plain(card.data_name)}"]
    lines.append(f"- SHA-256 of keys, sizes and labels: `{card.data_source}`")
    if card.data_sha256:
        lines.append(f"- SHA-256 of the shards: `{card.data_sha256}`")
    lines.append(f"- random seed: {card.seed}")
    lines += [
        f"- initial weights of {axis}: {_initial(task['initial_weights'])}"
        for axis, task in card.tasks.items()
        if "initial_weights" in task
    ]
    return "\n".join([*lines, "", "`train.flags` has all settings of the training."])


def _initial(card: InitialCard) -> str:
    name = {"none": "random", "imagenet": "ImageNet"}.get(card["name"], _plain(card["name"]))
    return f"{name}, SHA-256 `{card['sha256']}`" if card["sha256"] else name


def _evaluations(folder: pathlib.Path) -> dict[str, dict]:
    """{name: metrics.json} of the evaluations that can be read."""
    evaluations = {}
    for path in sorted(folder.glob("evaluation/*/metrics.json")):
        try:
            document = documents.read_file(path, dict)
            if document["about"]["data_name"] and document["split"] and document["tasks"]:
                evaluations[path.parent.name] = document
        except (OSError, ValueError, KeyError, TypeError):
            continue  # deepduel.evaluate writes it again
    return evaluations


def _best_accuracy(history: pathlib.Path, axis: str) -> float | None:
    try:
        with regular_files.open_text(history) as file:
            values = [row.get(f"val_{axis}_accuracy") for row in csv.DictReader(file)]
        return max((float(value) for value in values if value), default=None)
    except (OSError, ValueError, csv.Error):
        return None


def _plain(text: str) -> str:
    """A name as text of a table in Markdown."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("`", "'")
