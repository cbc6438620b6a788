"""A functional model that lacks an attribute, as if this version of Keras named it otherwise."""

import contextlib
from collections.abc import Iterator

import keras


class HidingModel(keras.Model):
    """As keras.Model; within `hiding(name)` it has no attribute of that name."""

    hidden: str | None = None

    def __getattribute__(self, name):
        if name != "hidden" and name == HidingModel.hidden:
            raise AttributeError(name)
        return super().__getattribute__(name)


@contextlib.contextmanager
def hiding(name: str) -> Iterator[None]:
    HidingModel.hidden = name
    try:
        yield
    finally:
        HidingModel.hidden = None
