"""The weights of another run's model -> a task's networks: the backbone, and as much of the head as fits."""

import keras
import numpy as np

from deepduel.networks import keras_file
from deepduel.networks.start_model import StartModel
from deepduel.networks.task_model import TaskModel
from tfrecords_tools.errors import DataError


def transfer(start: StartModel, model: TaskModel, *, head_only: bool = False) -> str:
    """Copies the weights that fit. Returns a clause about what was taken and what not.

    A layer of the head fits if its shape is the same and all layers before it fit; the last one if it also
    has the same classes, which may be in another order.

    Args:
      start: the saved model.
      model: the task's networks, whose weights are replaced.
      head_only: whether the backbone is another task's, which has its weights already.

    Raises:
      DataError: the saved model has another backbone, or cannot be loaded.
    """
    try:
        saved = keras_file.load(start.file)
    except DataError:
        raise
    except Exception as error:  # zipfile, h5py, json and Keras raise errors of their own
        raise DataError(f"{start.path}: cannot be loaded ({keras_file.reason(error)})") from error
    if saved.output_shape[1:] != (len(start.classes),):
        raise DataError(
            f"{start.path}: its output {saved.output_shape[1:]} does not fit the {len(start.classes)} "
            "classes of its run.json; the file belongs to another run"
        )
    if not head_only:
        _copy_backbone(saved, model, start.path)
    untaken = _copy_head(saved, model, start.classes)
    parts = ["the head"] if head_only else ["backbone", "head"]
    if not untaken:
        return f"{start.path}: {' and '.join(parts)}"
    return f"{start.path}: {'' if head_only else 'backbone, but not '}{untaken}"


def _copy_backbone(saved: keras.Model, model: TaskModel, path: str) -> None:
    for extractor in _models(saved, "_extractor"):
        for source, target in (
            (extractor, model.extractor),
            (_backbone(extractor), _backbone(model.extractor)),
        ):
            if source and target and _shapes(source) == _shapes(target):
                target.set_weights(source.get_weights())
                return
    names = ", ".join(part.name for each in _models(saved, "_extractor") for part in each.layers[-2:-1])
    raise DataError(
        f"{path}: its backbone ({names or 'none'}) is not {model.architecture.backbone} of the same shape; "
        "give the --backbone, --input_filter and --stem_stride of that run"
    )


def _copy_head(saved: keras.Model, model: TaskModel, classes: tuple[str, ...]) -> str:
    """Copies the layers that fit; names what does not, or "" if all of it does."""
    heads = _models(saved, "_head")
    sources, targets = (_dense(heads[0]) if heads else []), _dense(model.head)
    for number, target in enumerate(targets):
        last = number == len(targets) - 1
        what = "the head's last layer" if last else f"the head from dense layer {number + 1} on"
        if number >= len(sources) or (number == len(sources) - 1) != last:
            return f"{what} (the heads have other layers)"
        source = sources[number]
        if last and set(classes) != set(model.classes):
            return f"{what} (its classes are {', '.join(classes)})"
        if _shapes(source) != _shapes(target):
            return f"{what} (its shape differs)"
        kernel, bias = source.get_weights()
        order = [classes.index(name) for name in model.classes] if last else np.arange(len(bias))
        target.set_weights([kernel[:, order], bias[order]])
    return ""


def _models(saved: keras.Model, ending: str) -> list[keras.Model]:
    return [part for part in saved.layers if isinstance(part, keras.Model) and part.name.endswith(ending)]


def _backbone(extractor: keras.Model) -> keras.Model | None:
    models = [part for part in extractor.layers if isinstance(part, keras.Model)]
    return max(models, key=lambda part: part.count_params(), default=None)


def _dense(head: keras.Model) -> list[keras.layers.Dense]:
    return [part for part in head.layers if isinstance(part, keras.layers.Dense)]


def _shapes(layer: keras.Layer) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in layer.weights]
