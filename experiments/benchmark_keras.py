"""What Keras and TensorFlow offer, used as their guides use it: contenders of `benchmark_throughput`.

The augmentation is the original's: rotation 30 degrees, shifts 10 %, shear, zoom 0.7 to 1.3,
both flips, brightness 0.3 to 1.7, border pixels repeated.
"""

import math
from collections.abc import Iterator

import keras
import tensorflow as tf

from experiments.benchmark_job import Job

ORIGINAL = {
    "rotation_range": 30, "vertical_flip": True, "horizontal_flip": True, "width_shift_range": 0.1,
    "height_shift_range": 0.1, "shear_range": 0.1, "zoom_range": 0.3, "brightness_range": [0.3, 1.7],
    "fill_mode": "nearest",
}  # fmt: skip
_SHUFFLED_RECORDS = 2048
_ZOOM = (-0.3, 0.3)
_ROTATION = 30 / 360  # of a full turn
_SHIFT = 0.1
_SHEAR = math.tan(math.radians(0.1))
_BRIGHTNESS = (-0.35, 0.35)  # of the value range, added: the nearest that the layer offers


def tfdata(job: Job) -> Iterator[tuple[int, object]]:
    """uint8 [B, H, W, 3]."""
    yield from _counted(_records(job))


def flow(job: Job, *, augment: bool = False) -> Iterator[tuple[int, object]]:
    """float32 [B, H, W, 3]; with augmentation [B, S, S, 3]."""
    generator = tf.keras.preprocessing.image.ImageDataGenerator(**(ORIGINAL if augment else {}))
    size = (job.target_size, job.target_size) if augment else tuple(job.size)
    batches = generator.flow_from_directory(
        job.folder,
        target_size=size,
        batch_size=job.batch_size,
        class_mode="sparse",
        follow_links=True,
        seed=0,
    )
    for images, _ in batches:
        yield len(images), images


def image_dataset(job: Job) -> Iterator[tuple[int, object]]:
    """float32 [B, H, W, 3]."""
    yield from _counted(_image_dataset(job, tuple(job.size)))


def image_dataset_photos(job: Job) -> Iterator[tuple[int, object]]:
    """float32 [B, S, S, 3] of images of any size."""
    size = (job.target_size, job.target_size)
    yield from _counted(_image_dataset(job, size, crop_to_aspect_ratio=True))


def image_dataset_augmented(job: Job) -> Iterator[tuple[int, object]]:
    """float32 [B, S, S, 3]."""
    border = {"fill_mode": "nearest"}
    layers = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal_and_vertical"),
            keras.layers.RandomRotation(_ROTATION, **border),
            keras.layers.RandomTranslation(_SHIFT, _SHIFT, **border),
            keras.layers.RandomShear(_SHEAR, 0.0, **border),
            keras.layers.RandomZoom(_ZOOM, _ZOOM, **border),
            keras.layers.RandomBrightness(_BRIGHTNESS),
        ]
    )
    batches = _image_dataset(job, (job.target_size, job.target_size))
    augmented = batches.map(lambda images: layers(images, training=True), tf.data.AUTOTUNE)
    yield from _counted(augmented.prefetch(tf.data.AUTOTUNE))


def keras_cv_stack(job: Job) -> Iterator[tuple[int, object]]:
    """float32 [B, S, S, 3]."""
    layers = _keras_cv_layers(job)
    augmented = _records(job).map(lambda images: layers(images), tf.data.AUTOTUNE)
    yield from _counted(augmented.prefetch(tf.data.AUTOTUNE))


def keras_cv_alone(job: Job) -> Iterator[tuple[int, object]]:
    """float32 [B, S, S, 3] from one decoded batch."""
    layers = tf.function(_keras_cv_layers(job))
    images = next(iter(_records(job)))
    while True:
        yield len(images), layers(images)


def _keras_cv_layers(job: Job):
    """The augmentation on the stored size, the resize last: the cheapest order."""
    import keras_cv

    border = {"fill_mode": "nearest"}
    layers = [
        keras_cv.layers.RandomFlip("horizontal_and_vertical"),
        keras_cv.layers.RandomRotation(_ROTATION, **border),
        keras_cv.layers.RandomTranslation(_SHIFT, _SHIFT, **border),
        keras_cv.layers.RandomShear(x_factor=_SHEAR, **border),
        keras_cv.layers.RandomZoom(_ZOOM, _ZOOM, **border),
        keras_cv.layers.RandomBrightness(_BRIGHTNESS),
    ]

    def augment(images):
        images = tf.cast(images, tf.float32)
        for layer in layers:
            images = layer(images, training=True)
        return tf.image.resize(images, (job.target_size, job.target_size))

    return augment


def _records(job: Job) -> tf.data.Dataset:
    """uint8 [B, H, W, 3] as the tf.data guide reads TFRecords, over and over."""

    def decode(example):
        parsed = tf.io.parse_single_example(example, {"image": tf.io.FixedLenFeature([], tf.string)})
        return tf.ensure_shape(tf.io.decode_jpeg(parsed["image"], channels=3), (*job.size, 3))

    records = tf.data.TFRecordDataset(job.shards, num_parallel_reads=tf.data.AUTOTUNE)
    images = records.shuffle(_SHUFFLED_RECORDS).repeat().map(decode, tf.data.AUTOTUNE)
    return images.batch(job.batch_size).prefetch(tf.data.AUTOTUNE)


def _image_dataset(job: Job, size: tuple[int, int], **options) -> tf.data.Dataset:
    options |= {"image_size": size, "batch_size": job.batch_size}
    batches = keras.utils.image_dataset_from_directory(
        job.folder, follow_links=True, seed=0, verbose=False, **options
    )
    return batches.map(lambda images, labels: images).repeat()


def _counted(batches: tf.data.Dataset) -> Iterator[tuple[int, object]]:
    for batch in batches:
        yield len(batch), batch
