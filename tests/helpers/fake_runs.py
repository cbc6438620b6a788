"""Run folders for tests: real, saved models without the training."""

import pathlib

import numpy as np

from deepduel.decoding.split import Split
from deepduel.networks import keras_file, keras_graph, task_model
from deepduel.networks.architecture import Architecture
from deepduel.networks.run_card import RunCard

SIZE = 24


def write_run(folder: pathlib.Path, data_dir: pathlib.Path, *, axes=None, size=SIZE, seed=0) -> pathlib.Path:
    """A run over the data's axes with untrained small_cnn models, saved as training saves them."""
    split = Split(data_dir, "train")
    card = RunCard(
        tasks={
            axis: {"classes": list(names), "image_size": size}
            for axis, names in split.manifest.axes.items()
            if axes is None or axis in axes
        },
        size=(32, 32),
        fit="crop",
        fast_decode=False,
        data_name=split.manifest.name,
        data_source=split.manifest.source,
        seed=seed,
    )
    folder.mkdir(parents=True)
    architecture = Architecture("small_cnn", "avg", size, fine_tune="all")
    for axis, task in card.tasks.items():
        model = task_model.build(axis, architecture, tuple(task["classes"]), seed=seed).saved_model
        _spread(model, seed)
        (folder / axis).mkdir()
        keras_file.save(model, folder / axis / "best.keras")
    card.save(folder)
    return folder


def _spread(model, seed: int) -> None:
    """Larger weights in the last layer, so that different images get clearly different probabilities."""
    layer = next(part for part in keras_graph.flat_layers(model) if part.name == "logits")
    kernel, bias = layer.get_weights()
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, 2, kernel.shape), bias])
