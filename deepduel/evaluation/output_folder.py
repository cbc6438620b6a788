"""RUN/evaluation/NAME: the folder of an evaluation, so that no data set overwrites another's figures."""

import os
import pathlib
import re
from typing import Any

from deepduel.networks.run_card import RunCard
from tfrecords_tools.errors import UsageError
from tfrecords_tools.format import documents
from tfrecords_tools.format.manifest import Manifest


def choose(
    workdir: str | os.PathLike, name: str | None, split: str, manifest: Manifest, card: RunCard
) -> pathlib.Path:
    """The folder of an evaluation.

    Args:
      workdir: folder of the run.
      name: the evaluation's; None for the split's, after the data set's unless the run was trained on it.
      split: name of the split.
      manifest: of the data set.
      card: of the run.

    Raises:
      UsageError: the name is no name of a folder, or the folder holds the evaluation of another data set.
    """
    if name is None:
        name = split if manifest.source == card.data_source else f"{manifest.name}-{split}"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(
            f"the name of an evaluation must be of letters, digits, '_', '-' and '.', got {name!r}; give it "
            "another one with --name"
        )
    folder = pathlib.Path(workdir, "evaluation", name)
    evaluated = _data(folder / "metrics.json")
    if evaluated not in (None, manifest.source):
        raise UsageError(
            f"{folder} holds the evaluation of other data (source {str(evaluated)[:12]}, these have "
            f"{manifest.source[:12]}); give this one another --name, or remove the folder"
        )
    return folder


def _data(path: pathlib.Path) -> Any:
    """The source of the data that a metrics.json is about; None if there is none that can be read."""
    try:
        return documents.read_file(path, dict)["about"]["data_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
