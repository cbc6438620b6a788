"""The commands of `deepduel`, by name. Nothing is imported until a command is asked for."""

import importlib
from types import ModuleType
from typing import NamedTuple


class Subcommand(NamedTuple):
    """A command: `python -m MODULE` does the same as `deepduel NAME`."""

    module: str
    summary: str


SUBCOMMANDS = {
    "fit": Subcommand("deepduel.fit", "Convert, train and evaluate in one command."),
    "convert": Subcommand("tfrecords_tools.convert", "Convert a folder of images to shards."),
    "train": Subcommand("deepduel.train", "Train an image classifier on shards."),
    "evaluate": Subcommand("deepduel.evaluate", "Evaluate the models of a run, and write a report."),
    "predict": Subcommand("deepduel.predict", "Predict the labels of images."),
    "compare": Subcommand("deepduel.compare", "Compare two evaluated runs image by image."),
    "export": Subcommand("deepduel.export", "Export the models of a run for other programs."),
    "export_images": Subcommand("tfrecords_tools.export", "Write the images of shards to other formats."),
    "inspect": Subcommand("tfrecords_tools.inspect", "Show what a folder of shards holds."),
    "verify": Subcommand("tfrecords_tools.verify", "Check a folder of shards for damage."),
    "profile": Subcommand("deepduel.profile_input", "Measure how fast shards are read and decoded."),
    "data_service": Subcommand(
        "deepduel.data_service", "Read and decode images for trainers on other machines."
    ),
    "quickstart": Subcommand("deepduel.quickstart", "Try all steps on toy images."),
    "toy_images": Subcommand("deepduel.toy_images", "Draw labelled toy images."),
    "completion": Subcommand("deepduel.completion", "Print the completion script of a shell."),
}


def load(name: str) -> ModuleType:
    """The module of a command, which has `FLAGS` and `entry`; it loads no TensorFlow."""
    return importlib.import_module(SUBCOMMANDS[name].module)
