"""Exports the models of a run for other programs.

    python -m deepduel.export --workdir=RUN --output=EXPORTED --format=keras

The exported models take images of any size and resize them as the run does.
"""

import sys

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError

FLAGS = flags.FlagValues()
USUAL = {"Flags": ("workdir", "output", "format", "tasks", "model")}
flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Folder for the exported models.", flag_values=FLAGS)
flags.DEFINE_enum(
    "format",
    "savedmodel",
    ["keras", "savedmodel", "onnx", "litert"],
    "keras (.keras), savedmodel (TensorFlow), onnx, or litert (.tflite, for phones).",
    flag_values=FLAGS,
)
flags.DEFINE_list("tasks", None, "Tasks to export; by default all of the run.", flag_values=FLAGS)
flags.DEFINE_string(
    "model", "best", "Checkpoint of each task to export: best, or epoch-NN.", flag_values=FLAGS
)


def main(options: flags.FlagValues) -> None:
    """Writes the models, and prints their paths."""
    for name, meaning in {"workdir": "the folder of the run", "output": "a folder for the models"}.items():
        if not options[name].value:
            raise UsageError(f"--{name} is missing; set it to {meaning}")
    cli.quiet_tensorflow()
    from deepduel.prediction.export import export
    from deepduel.prediction.predictor import Predictor

    predictor = Predictor(options.workdir, tasks=options.tasks, model=options.model)
    for path in export(predictor, options.output, options.format):
        print(path)


def entry() -> int:
    """The command; returns its exit code."""
    return cli.run(main, FLAGS, name="deepduel.export", usual=USUAL, usage="--workdir=RUN --output=EXPORTED")


if __name__ == "__main__":
    sys.exit(entry())
