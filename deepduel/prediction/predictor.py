"""The models of a run as a function: uint8 [B, H, W, 3] -> {axis: float32 [B, classes]}, probabilities.

Images are resized exactly as for validation during training: to `RunCard.size` when they are decoded,
and here to the input size of each task's model.
"""

import functools
import os
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from deepduel.augmentation.transform import resize
from deepduel.decoding.image import DecodeOptions
from deepduel.networks import keras_file, serving_model
from deepduel.networks.compiled import compiled
from deepduel.networks.folding import Folded
from deepduel.networks.micro_batches import in_micro_batches
from deepduel.networks.run_card import RunCard
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.images.encoding_options import KEEP, EncodingOptions

BEST = "best"


class Predictor:
    """Maps a batch of images to the probabilities of every task.

    Attributes:
      card: the `RunCard` of the run.
      classes: {axis: label names}, in the order of the probabilities.
      files: {axis: path of the model file}.

    Example:
      predictor = Predictor("run", tasks=["authenticity"])
      probabilities = predictor(images)["authenticity"]  # uint8 [B, H, W, 3] -> float32 [B, 2]
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        tasks: Sequence[str] | None = None,
        model: str = BEST,
        micro_batch: int = 32,
    ):
        """Opens a run. The models are loaded when they are first needed.

        Args:
          workdir: folder of the run.
          tasks: label axes to predict; None takes all of the run.
          model: checkpoint to use, "best" or "epoch-NN".
          micro_batch: images per pass through the models, >= 1.

        Raises:
          DataError: the folder has no run, or no model of a task yet.
          UsageError: the run has no such task or model, or `micro_batch` is less than 1.
        """
        if micro_batch < 1:
            raise UsageError(f"micro_batch must be at least 1, got {micro_batch}")
        self.card = RunCard.load(workdir)
        chosen = list(self.card.tasks) if tasks is None else list(tasks)
        for axis in chosen:
            if axis not in self.card.tasks:
                raise UsageError(
                    f"tasks: the run {workdir} has no task {axis!r}; it has {', '.join(self.card.tasks)}"
                )
        if not chosen or len(set(chosen)) < len(chosen):
            raise UsageError(
                f"tasks must name at least one task, and each once; got {','.join(chosen) or 'none'}"
            )
        self.classes = {axis: tuple(self.card.tasks[axis]["classes"]) for axis in chosen}
        self.files = {axis: model_file(workdir, axis, model) for axis in chosen}
        self._micro_batch = micro_batch
        spec = tf.TensorSpec((None, *self.card.size, 3), tf.uint8)
        self._run = compiled(self._probabilities, spec)

    @functools.cached_property
    def models(self) -> dict[str, keras.Model]:
        """The Keras models by axis. Raises DataError when a file is damaged or belongs to another run."""
        return {axis: self._load(axis) for axis in self.files}

    @functools.cached_property
    def _networks(self) -> dict[str, Folded]:
        return {axis: Folded(model) for axis, model in self.models.items()}

    @property
    def decoding(self) -> DecodeOptions:
        """The options with which to decode images for this predictor."""
        return DecodeOptions(self.card.size, self.card.fit, self.card.fast_decode)

    def framing(self, axis: str) -> serving_model.Framing:
        """How images become the input of the axis' model."""
        side, fit = self.encoding.image_size, self.encoding.fit
        return serving_model.Framing(self.card.size, self.card.fit, self._shape(axis)[1], side, fit)

    @property
    def encoding(self) -> EncodingOptions:
        """How the conversion of the training data turned image files into pixels.

        Raises:
          DataError: run.json has options that no conversion has.
        """
        if not self.card.data_options:  # a run of an earlier version
            return KEEP
        try:
            return EncodingOptions.recorded(self.card.data_options)
        except (ValueError, TypeError) as error:
            raise DataError(f"run.json: data_options are those of no conversion ({error})") from error

    def __call__(self, images: np.ndarray | tf.Tensor) -> dict[str, np.ndarray]:
        """uint8 [B, H, W, 3] of `card.size` -> {axis: float32 [B, classes]}."""
        _ = self._networks  # loads the models outside of the graph
        return {axis: part.numpy() for axis, part in self._run(images).items()}

    def inputs(self, images: np.ndarray | tf.Tensor, axis: str) -> tf.Tensor:
        """The input of the axis' model: uint8 [B, H, W, 3] -> float32 [B, S, S, 3], 0..255."""
        return self._resized(tf.convert_to_tensor(images), *self._shape(axis))

    def _probabilities(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        def forward(part: tf.Tensor, filled: tf.Tensor) -> tuple[dict[str, tf.Tensor], tuple]:
            inputs = {shape: self._resized(part, *shape) for shape in map(self._shape, self.models)}
            rows = {axis: run(inputs[self._shape(axis)]) for axis, run in self._networks.items()}
            return rows, ()

        specs = {axis: tf.TensorSpec((len(names),), tf.float32) for axis, names in self.classes.items()}
        return in_micro_batches(forward, images, rows=specs, micro_batch=self._micro_batch)[0]

    def _shape(self, axis: str) -> tuple[int, int]:
        """(side of the model's input, side of the central crop that it shows or 0 for all), in pixels."""
        task = self.card.tasks[axis]
        return task["image_size"], task.get("crop_size", 0)

    def _resized(self, images: tf.Tensor, size: int, crop_size: int) -> tf.Tensor:
        return resize(images, size, crop_size=crop_size)

    def _load(self, axis: str) -> keras.Model:
        path = self.files[axis]
        side = self.card.tasks[axis]["image_size"]
        try:
            model = keras_file.load(path)
            shapes = tuple(model.input_shape[1:]), tuple(model.output_shape[1:])
        except DataError:
            raise
        except Exception as error:  # zipfile, h5py, json and Keras raise errors of their own
            reason = keras_file.reason(error)
            raise DataError(f"{path}: not a complete Keras model ({reason}); train the run again") from error
        expected = (side, side, 3), (len(self.classes[axis]),)
        if shapes != expected:
            raise DataError(
                f"{path}: maps {shapes[0]} to {shapes[1]}, but by run.json it must map {expected[0]} to "
                f"{expected[1]}; the file belongs to another run"
            )
        return model


def model_file(workdir: str | os.PathLike, axis: str, model: str) -> pathlib.Path:
    """RUN/<axis>/<model>.keras.

    Raises:
      DataError: the task has no model yet.
      UsageError: the task has models, but not this one.
    """
    folder = pathlib.Path(workdir, axis)
    path = folder / f"{model.removesuffix('.keras')}.keras"
    if path.is_file():
        return path
    known = sorted(file.stem for file in folder.glob("[!.]*.keras"))
    if not known:
        raise DataError(f"{folder}: there is no model yet; the first is saved at the end of the first epoch")
    raise UsageError(f"model={model}: {folder} has no such model; it has {', '.join(known)}")
