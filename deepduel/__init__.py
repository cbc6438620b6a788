"""TFRecord shards to trained image classifiers.

Users run the command `deepduel`, whose commands are the modules beside this one, such as `train`, call them
from Python by the functions of `api`, and import `pipeline`, `augment`, `order`, `mixing`, `errors`, or the
names below. Folders are private; each imports from those under it only:

presets        flagfiles by name
reports        figures -> HTML pages, plots, galleries
evaluation     predictions -> figures
runs           one training run: its folder, state and progress      prediction  a run's models -> answers
training       a batch -> loss, gradients, update
networks       options -> backbone, head, saved model
augmentation   uint8 pixels -> augmented float pixels, on the device
reading        record numbers -> tf.data batches
decoding       a record -> uint8 pixels
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepduel.api import Run, convert, fit, train
    from deepduel.augment import Augmentation, RandomWarp
    from deepduel.errors import DataError, UsageError
    from deepduel.pipeline import make_eval, make_train

__version__ = "0.2.0"

_MODULES = ("fit", "train")  # they may be called, see `callable_module`
_PUBLIC = {  # imported when they are first used, so that `import deepduel` loads no TensorFlow
    "convert": "deepduel.api",
    "Run": "deepduel.api",
    "make_train": "deepduel.pipeline",
    "make_eval": "deepduel.pipeline",
    "RandomWarp": "deepduel.augment",
    "Augmentation": "deepduel.augment",
    "DataError": "deepduel.errors",
    "UsageError": "deepduel.errors",
}
__all__ = [
    "Augmentation", "DataError", "RandomWarp", "Run", "UsageError", "convert", "fit", "make_eval",
    "make_train", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"deepduel.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deepduel' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC, *_MODULES]
