"""A serving model sees the pixels that the run's own reader makes of an image."""

import keras
import numpy as np
import pytest

from deepduel.augmentation.transform import resize
from deepduel.decoding.image import DecodeOptions, resize_image
from deepduel.networks import keras_file, serving_model
from tests.helpers import odd_images
from tfrecords_tools.images.encoding_options import EncodingOptions

SIZES = (40, 61), (97, 33), (24, 24), (7, 90), (1, 1), (25, 24)


def _pixels_seen(framing: serving_model.Framing, side: int) -> keras.Model:
    """A serving model whose output is the input of the network."""
    pixels = keras.Input((side, side, 3))
    return serving_model.build_probabilities(keras.Model(pixels, keras.layers.Identity()(pixels)), framing)


@pytest.mark.parametrize("fit", ["crop", "pad", "native"])
@pytest.mark.parametrize(
    ("size", "crop_size", "side"), [((24, 24), 0, 24), ((24, 20), 0, 24), ((24, 24), 20, 12)]
)
def test_any_image_becomes_the_pixels_of_the_reader(fit, size, crop_size, side):
    model = _pixels_seen(serving_model.Framing(size, fit, crop_size), side)
    for shape in SIZES:
        image = np.asarray(odd_images.picture(shape[1], shape[0], seed=3))
        read = resize_image(image, DecodeOptions(size, fit))
        expected = resize(read[None], side, crop_size=crop_size).numpy()
        for dtype in (np.uint8, np.float32):
            difference = np.abs(np.asarray(model(image[None].astype(dtype))) - expected)
            assert difference.max() <= 2 and difference.mean() < 0.3, (
                shape
            )  # the reader rounds between its passes


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
def test_the_resize_of_the_conversion_comes_first(fit):
    encoding = EncodingOptions("raw", 20, fit)
    model = _pixels_seen(serving_model.Framing((24, 24), "crop", 0, 20, fit), 24)
    for shape in SIZES:
        image = odd_images.picture(shape[1], shape[0], seed=3)
        stored = np.frombuffer(encoding.encode(image)[0], np.uint8).reshape(20, 20, 3)
        expected = resize_image(stored, DecodeOptions((24, 24), "crop"))
        difference = np.abs(np.asarray(model(np.asarray(image)[None])) - expected)
        assert difference.max() <= 3 and difference.mean() < 0.5, shape


def test_labels_are_those_of_the_highest_probability(tmp_path):
    pixels = keras.Input((8, 8, 3))
    means = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(pixels))
    names = "=red", "Grün", "blue, or none"
    built = serving_model.build(keras.Model(pixels, means), serving_model.Framing((8, 8), "crop"), names)
    keras_file.save(built, tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = np.zeros((3, 30, 20, 3), np.uint8)
    images[np.arange(3), ..., [1, 2, 0]] = 9
    outputs = loaded.predict(images, verbose=0)
    assert [label.decode() for label in outputs["label"]] == ["Grün", "blue, or none", "=red"]
    np.testing.assert_array_equal(outputs["probabilities"].argmax(1), [1, 2, 0])
