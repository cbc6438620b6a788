"""What TensorBoard shows of a run once: what its tags mean, its flags, its networks, a page of charts."""

import json
from collections.abc import Sequence

import tensorflow as tf
from absl import flags as absl_flags
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.graph import keras_util
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary

from deepduel.runs import run_options, train_flags
from deepduel.training.task import Task

MEASURES = ("accuracy", "loss", "roc_auc")
_UNIMPORTANT = (  # for a comparison of runs: where they are, and how they are watched
    "workdir", "data_dir", "max_minutes", "save_every", "keep_epochs", "profile_steps", "dry_run",
    "find_learning_rate", "remote_cache", "threads", "devices",
)  # fmt: skip
_ABOUT = """
The horizontal axis (**step**) is the **number of training images seen**. Each chart
has the runs `train` and `validation`. TASK is a label axis.

| card | what it shows |
|---|---|
| `epoch_accuracy/TASK` | **look here first:** share of images classified correctly |
| `epoch_loss/TASK` | loss; rising for validation while it falls for training means overfitting |
| `epoch_roc_auc/TASK` | area under the ROC curve; with more than two classes, of each against the others |
| `epoch_skipped_steps/TASK` | updates that were left out because a gradient was not finite |
| `epoch_speed/…` | seconds, images per second, share of time waiting for input, unreadable images |
| `learning_rate/TASK`, `loss_scale/TASK` | learning rate and loss scale of the optimizer, once a second |
| `speed/…` | images per second, share of time spent waiting for input, and memory, once a second |
| `step_accuracy/TASK`, `step_loss/TASK`, … | running means since the epoch began, once a second |
| `training_images/TASK` | images as the network sees them, augmented, with label and path |
| `validation_confusion/TASK` | images of each true class (row) by predicted class (column) |
| `validation_mistakes/TASK` | the most confident mistakes: true class, predicted class, path |

**Custom Scalars** has accuracy, loss and AUC of all tasks on one page. **HParams** compares runs
below one folder, flags that are not at their defaults first.
**Graphs** shows the layers of each task's network (a double click opens a group).
"""


def write(writer: tf.summary.SummaryWriter, flags: str, tasks: Sequence[Task]) -> None:
    """Writes all of it with step 0.

    Args:
      flags: the flagfile of the run.
    """
    with writer.as_default(step=0):
        tf.summary.text("about", _ABOUT)
        tf.summary.text("flags", "\n".join(f"    {line}" for line in flags.splitlines()))
        _write_hyperparameters(flags, tasks)
        tf.summary.experimental.write_raw_pb(custom_scalar.pb(_layout(tasks)).SerializeToString())
        tf.summary.graph(_networks(tasks))


def _write_hyperparameters(flags: str, tasks: Sequence[Task]) -> None:
    """The flags for the page HParams, which lists those first that "differ": here, from their defaults."""
    values, defaults = _values(flags), _values(_default_flags())
    names = [
        api_pb2.HParamInfo(
            name=name,
            type=api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64,
            differs=name in defaults and value != defaults[name] and name not in _UNIMPORTANT,
        )
        for name, value in values.items()
    ]
    metrics = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(group="validation", tag=f"epoch_{measure}/{task.name}"),
            display_name=f"{task.name} {measure}",
        )
        for task in tasks
        for measure in MEASURES
    ]
    experiment = hparams_summary.experiment_pb(names, metrics)
    tf.summary.experimental.write_raw_pb(experiment.SerializeToString())
    hparams.hparams(values)


def _default_flags() -> str:
    defaults = absl_flags.FlagValues()
    train_flags.define(defaults)
    defaults.mark_as_parsed()
    return run_options.flagfile(defaults, defaults=True)


def _values(flags: str) -> dict[str, str | float]:
    texts: dict[str, str] = {}
    for line in flags.splitlines():
        if line.startswith("--") and "=" in line:
            name, _, value = line.removeprefix("--").partition("=")
            texts[name] = f"{texts[name]} {value}" if name in texts else value
    return {name: _number(text) for name, text in texts.items()}


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _layout(tasks: Sequence[Task]) -> layout_pb2.Layout:
    """Accuracy, AUC and loss of every task, training and validation in one chart, on one page."""
    categories = [
        layout_pb2.Category(
            title=f"{task.name}, by training images seen",
            chart=[
                layout_pb2.Chart(
                    title=f"{task.name} {measure}",
                    multiline=layout_pb2.MultilineChartContent(tag=[f"^epoch_{measure}/{task.name}$"]),
                )
                for measure in MEASURES
            ],
        )
        for task in tasks
    ]
    return layout_pb2.Layout(category=categories)


def _networks(tasks: Sequence[Task]) -> tf.compat.v1.GraphDef:
    """The layers of each task's saved model; every name begins with that of the task.

    A model that TensorBoard cannot draw is left out: a picture must not end a training.
    """
    graph = tf.compat.v1.GraphDef()
    for task in tasks:
        try:
            layers = json.loads(task.model.saved_model.to_json(), object_hook=_with_compute_dtype)
            graph.MergeFromString(keras_util.keras_model_to_graph_def(layers).SerializeToString())
        except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            print(f"{task.name}: TensorBoard cannot draw its network ({error!r})", flush=True)
    return graph


def _with_compute_dtype(part: dict) -> dict:
    """A part of a model's JSON; of a mixed policy's name, only the data type, which TensorBoard knows."""
    if part.get("class_name") == "DTypePolicy":
        part["config"]["name"] = part["config"]["name"].removeprefix("mixed_")
    return part
