"""The augmentation as a keras-cv layer: `RandomWarp`.

image [H, W, 3], batch [B, H, W, 3] or {"images": …}, uint8 or float 0..255 -> the same, float 0..255
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from deepduel.augmentation import randaugment
from deepduel.augmentation.options import Augmentation
from deepduel.augmentation.transform import as_pair, augment, resize

_UNSUPPORTED = ("bounding_boxes", "keypoints", "segmentation_masks")


@keras.saving.register_keras_serializable(package="deepduel")
class RandomWarp(randaugment.AugmentationLayer):
    """`augment` as a keras-cv layer, which other keras-cv layers can follow.

    The input is an image [H, W, 3], a batch [B, H, W, 3], or a dictionary with "images"; its other values,
    such as labels, are returned unchanged under any dtype policy. If the dictionary has "seeds" (int32 [2] or
    [B, 2]), the layer is stateless; otherwise it draws seeds from its own random generator. With
    training=False, as in `predict` and `evaluate`, it crops the centre and resizes.

    Args:
      size: side or (height, width) of the output in pixels; None keeps the size of the crop or the images.
      seed: seed of the layer's generator, any int32; None for a different one each time.
      augmentation: an `Augmentation`; or give its fields by name.
      name: name of the layer.
      dtype: dtype or dtype policy of the output.
      **fields: fields of `Augmentation`.

    Raises:
      ValueError: both augmentation and fields are given, a field is outside its limits, or an input has
        bounding boxes, keypoints or segmentation masks.

    Example:
      >>> warp = RandomWarp(size=24, seed=0, rotation_range=15, horizontal_flip=True)
      >>> warp(tf.zeros([8, 32, 32, 3], tf.uint8)).shape
      TensorShape([8, 24, 24, 3])
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        *,
        name: str | None = None,
        dtype: str | keras.DTypePolicy = "float32",
        **fields: Any,
    ):
        # Autocasting would convert float labels to the layer's dtype before `call`.
        super().__init__(name=name, dtype=dtype, autocast=False)
        if augmentation is not None and fields:
            raise ValueError(f"give either augmentation or its fields, not both: {sorted(fields)}")
        self.augmentation = Augmentation(**fields) if augmentation is None else augmentation
        self.size = None if size is None else as_pair(size)
        self.seed = seed
        # keras-cv treats seed 0 as no seed and then uses TensorFlow's global generator.
        self._random_generator = (
            tf.random.Generator.from_non_deterministic_state()
            if seed is None
            else tf.random.Generator.from_seed(seed)
        )
        # Otherwise jit_compile="auto" would compile the whole model by XLA, convolutions included.
        self.supports_jit = False

    def call(self, inputs: Any, training: bool | None = True) -> Any:
        if isinstance(inputs, Mapping):
            for key in _UNSUPPORTED:
                if key in inputs:
                    raise ValueError(f"RandomWarp moves pixels only: {key!r} would no longer match them")
            inputs = {**inputs, "images": tf.convert_to_tensor(inputs["images"])}
        else:
            inputs = tf.convert_to_tensor(inputs)  # keras-cv mistakes a NumPy array for a dictionary
        self._is_training = training
        return super().call(inputs)

    def _ensure_inputs_are_compute_dtype(self, inputs: Any) -> Any:
        return inputs  # uint8 images are a quarter of the bytes, and labels are returned unchanged

    def _batch_augment(self, inputs: dict[str, Any]) -> dict[str, Any]:
        images = inputs["images"]
        if not self._is_training:
            out = resize(images, self.size, crop_size=self.augmentation.crop_size)
        else:
            seeds = inputs.get("seeds")
            if seeds is None:
                seeds = self._random_generator.uniform_full_int([tf.shape(images)[0], 2], tf.int32)
            out = augment(images, seeds, self.augmentation, self.size)
        return {**inputs, "images": tf.cast(out, self.compute_dtype)}

    def compute_output_shape(self, input_shape: Any) -> Any:
        if isinstance(input_shape, Mapping):
            return {**input_shape, "images": self.compute_output_shape(input_shape["images"])}
        crop = self.augmentation.crop_size
        side = (crop, crop) if crop else tuple(input_shape[-3:-1])
        return (*input_shape[:-3], *(self.size or side), input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        config = {"size": self.size, "seed": self.seed, "name": self.name}
        config["dtype"] = keras.saving.serialize_keras_object(self.dtype_policy)
        return config | dataclasses.asdict(self.augmentation)


RandomWarp.__module__ = "deepduel.augment"  # saved models name the public module
